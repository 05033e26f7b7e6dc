"""Edit triplets: checks without weights, foreground masks, set-level rules, augmentation and their calibration."""
