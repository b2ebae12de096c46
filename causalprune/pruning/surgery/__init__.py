"""Criteria that also set the weights they keep, by recorded gradients: ``chita`` (:mod:`.chita`) and ``obs``.

``obs`` (:mod:`.criterion`) is optimal brain surgery over the whole network. :mod:`.curvature` weighs the gradients by
the curvature that was measured along them, :mod:`.rows` reads them in blocks, :mod:`.path` orders the weights and
solves for those that are kept. :mod:`.kept` is what masks of one recording share.
"""
