"""Where, how and on what to compute: devices, seeds, precision, inputs, and the processes that share a job."""
