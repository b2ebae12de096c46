"""Causal pruning of neural networks (arXiv 2412.03035): record gradient descent, fit γ, prune what isn't causal.

``causalprune.commands`` has the pipeline as functions, ``causalprune.training.recorder.Recorder`` records a
training loop of your own. Importing this package loads neither PyTorch nor Zarr.
"""
