"""The exact fit of columns that lie in the memory of a device: decoded once, and correlated there in float64.

A device passes over all columns in milliseconds, so nothing has to be screened or bounded: every solution is checked
against every column. Only the small problem of the active columns is solved on the CPU, as in any exact fit.

=============  =======================================================================================================
residents      The columns on the device, as float32 or as deltas with the store's own mantissa; and whether they fit.
matrix         Scaled columns, and products with all of them.
path_columns   All columns as those that a path is solved over.
region         A range of columns fitted by itself: measure, solve, certify, rank.
passes         What :mod:`causalprune.solver.streaming` is for columns that are read in blocks.
=============  =======================================================================================================
"""
