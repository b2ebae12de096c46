"""``record``: the training loop that is recorded, and the store that it writes."""
