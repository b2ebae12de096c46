"""``apply-mask``: turn a fit, or another criterion, into a mask; the function is in :mod:`.command`.

:mod:`.candidates` finds out which weights may be pruned, :mod:`.rewinding` which checkpoint to go back to.
"""
