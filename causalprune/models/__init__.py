"""The networks: the paper's, the usual ones, torchvision's, and the user's own."""
