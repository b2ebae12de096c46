"""The HTML page that shows what a sweep found."""
