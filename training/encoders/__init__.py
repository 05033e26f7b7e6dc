"""Pre-training of the demo's frozen parts: tokenizer, processor, VAE and the vision-language encoder."""
