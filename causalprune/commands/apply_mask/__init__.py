"""``apply-mask``: turn a fit, or another criterion, into a mask; the function is in :mod:`.command`.

:mod:`.candidates` finds out which weights may be pruned, :mod:`.measuring` what the data say about layers and about the
whole network, :mod:`.rewinding` which checkpoint to go back to, and :mod:`.state_dict` does without a checkpoint.
"""
