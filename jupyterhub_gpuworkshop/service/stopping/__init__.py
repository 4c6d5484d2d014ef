"""Stopping idle servers whose share somebody waits for."""
