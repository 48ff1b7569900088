"""Plugins: what an author writes, how plugins are found and checked, and how a conf's chain of them runs."""

import apisix.runner.compiled  # noqa: F401  # before any module of this room: it settles what runs compiled
