"""What touches the host: GPUs, processes, limits."""
