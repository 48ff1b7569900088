"""Plugins: what an author writes, how plugins are found and checked, and how a conf's chain of them runs."""
