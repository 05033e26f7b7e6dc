"""The procedural scene world: embedded data set, exact judge and benchmark."""
