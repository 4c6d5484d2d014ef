"""Commands people run."""
