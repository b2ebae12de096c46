"""The training loop that pretrain and posttrain share, and its parts."""
