"""``sweep``: many pipelines into one table; the function is in :mod:`.command`.

The grid (:mod:`.grid`) has a point for each row of the table (:mod:`.table`). A point is measured in a cell
(:mod:`.cell`), which is a chain of steps (:mod:`.steps`); a step is run once, whichever cells need it
(:mod:`.step_runner`).
"""
