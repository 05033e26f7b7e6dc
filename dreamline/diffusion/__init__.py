"""The maths of flow matching alone: pure functions of tensors."""
