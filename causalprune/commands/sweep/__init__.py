"""A sweep: a grid of cells, the steps that they share, and the table of their results."""
