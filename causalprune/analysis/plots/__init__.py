"""Pictures as PNG files, drawn with the optional package matplotlib."""
