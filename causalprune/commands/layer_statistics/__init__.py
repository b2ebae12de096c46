"""Statistics of the layers: measured on training samples, and kept in a store for commands that have no data."""
