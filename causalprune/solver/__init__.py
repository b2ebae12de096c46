"""Fit γ: exact and certified Lasso and elastic net, and the authors' truncated gradient."""
