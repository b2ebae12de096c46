"""Recipes: what ``run --recipe NAME`` sets, by the names of the options, with where each value comes from."""
