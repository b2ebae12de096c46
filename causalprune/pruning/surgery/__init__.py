"""The criterion ``obs``: optimal brain surgery over the whole network, on recorded gradients; see :mod:`.criterion`.

:mod:`.curvature` weighs the gradients by the curvature that was measured along them, :mod:`.rows` reads them in blocks,
:mod:`.path` prunes one weight after the other and solves for the weights that are kept.
"""
