"""The library: contracts, maths, model, data and one engine, shared by every room."""
