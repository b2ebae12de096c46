"""``evaluate``: measure a network on its test data; the function is in :mod:`.command`.

:mod:`.flatness` measures the loss around it, and says how much work that is.
"""
