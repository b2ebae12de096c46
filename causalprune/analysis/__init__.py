"""What a pruned network costs, how flat its loss is, how far a fit can be trusted, and pictures of all that."""
