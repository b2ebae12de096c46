"""Metrics, cost, curvature and plots of a network."""
