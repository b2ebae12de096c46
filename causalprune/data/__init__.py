"""Data sets, their splits, augmentation and batches."""
