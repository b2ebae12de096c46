"""Which columns a recording has: a random share of each layer's weights, and which process writes which of them.

:mod:`.sample` draws the share, :mod:`.parts` divides a shard among several processes, and :mod:`.planned` knows them
before anything is recorded.
"""
