"""``record``: run plain SGD and record each step; the function is in :mod:`.command`.

:mod:`.loop` takes the steps, :mod:`.store` opens the recording that they are written to, :mod:`.layers` measures what
``--layer-statistics`` keeps beside it.
"""
