"""``info``: say what a store, a checkpoint or a run directory is."""
