"""Which parameters to prune: criteria that score them, schedules, selection, and the mask that results."""
