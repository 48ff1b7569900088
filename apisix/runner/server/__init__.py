"""The running server: sockets, threads, processes, confs, and what happens to a frame."""

import apisix.runner.compiled  # noqa: F401  # before any module of this room: it settles what runs compiled
