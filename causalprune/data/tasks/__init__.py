"""Tasks: what the outputs of a network mean, and how they are judged."""
