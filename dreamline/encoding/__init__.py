"""From pictures and prompts to latents and text features, by the frozen encoders."""
