"""Counts the instructions of a call, so that what makes it dearer is seen when it is written. See ../README.md."""
