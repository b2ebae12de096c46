"""Steps that are tried at one point, measured, and taken back."""
