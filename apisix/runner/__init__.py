"""Runs plugins for Apache APISIX that are written in Python."""

__version__ = "1.0.0.dev0"
