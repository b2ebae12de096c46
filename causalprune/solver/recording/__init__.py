"""γ of a recording.

:mod:`.options` say which problem is solved, :mod:`.columns` what its columns are, :mod:`.regression` solves it, and
:mod:`.curvature` estimates the curvature that γ of groups implies. :func:`.fit.fit` is all of it for a user of the
library.
"""
