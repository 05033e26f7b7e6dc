"""The reward protocol and reward models."""
