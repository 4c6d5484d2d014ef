"""A stand-in for TLJH, which is on no registry: what a plugin meets of it, no more."""
