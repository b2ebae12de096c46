"""Prune and repair a network: from a recording, a criterion and samples to a mask.

:mod:`.named_layers` finds the layers that are named, :mod:`.choice` chooses the weights, :mod:`.task` does it to a
network in memory, :mod:`.repair` repairs one, and :mod:`.samples` takes the inputs that either needs from a loader.
"""
