"""The training loop of pretrain and posttrain, the recorder, optimizers, losses and metrics."""
