"""Solvers to compare with: scikit-learn's coordinate descent, and the truncated gradient of the paper's authors."""
