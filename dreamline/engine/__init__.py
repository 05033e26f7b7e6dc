"""The one training loop, its DeepSpeed backend, checkpoints and the launcher."""
