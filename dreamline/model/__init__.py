"""Build, load and publish the networks; turn prompts and sources into U-Net input."""
