"""Reward-model training and reward fine-tuning."""
