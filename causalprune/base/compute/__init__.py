"""Where and how to compute: devices, seeds, precision, and the processes that share a job."""
