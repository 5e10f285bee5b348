"""workerd: runs commands as managed, limited and isolated jobs."""

__version__ = "0.1.0"
