"""``report``: a page of a sweep or of a run; the function is in :mod:`.command`.

:mod:`.of_sweep` and :mod:`.of_run` fill the page, :mod:`.origin` says where what it shows comes from.
"""
