"""Flatness of the loss around a network: Hessian spectra, noise tolerance and slices of the loss landscape."""
