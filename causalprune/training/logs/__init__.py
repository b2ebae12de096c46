"""Logs of training and recording, for the programs in which people look at curves."""
