"""Pictures as PNG files; drawing them needs matplotlib, which is an extra."""
