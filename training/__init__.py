"""The flow-matching objective: T2I, edit, joint and SFT are four configurations of it."""
