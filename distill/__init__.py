"""Distribution matching distillation to a few steps."""
