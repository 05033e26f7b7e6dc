"""From a checkpoint to a device."""
