"""What only a real GPU can show: `python -m benchmarks.gpu.parking`."""
