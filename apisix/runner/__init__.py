"""Runs plugins for Apache APISIX that are written in Python."""

from apisix.runner import compiled

__version__ = "1.0.0.dev0"
__all__ = ["compiled"]  # imported before everything else: it settles what runs compiled
