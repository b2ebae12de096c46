"""``info``: describe a store, a checkpoint or a run directory; the function is in :mod:`.command`."""
