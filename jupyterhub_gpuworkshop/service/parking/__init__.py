"""Parking kernels and bringing them back: records, turns, the queue at each device."""
