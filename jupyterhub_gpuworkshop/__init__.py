"""Share a server's GPUs fairly among the attendees of a JupyterHub workshop."""

__version__ = "0.1.0.dev0"
