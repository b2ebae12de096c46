"""The HTML page that shows the results of a sweep."""
