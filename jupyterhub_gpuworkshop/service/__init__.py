"""The GPU service: the only process that samples GPUs, beside the hub."""
