"""What results are made from: checkpoints, recordings, and code and data of the user; compared by their hashes."""
