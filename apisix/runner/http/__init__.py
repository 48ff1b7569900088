"""What a plugin sees of a call: `Request`, `Response`, and their headers and arguments."""

import apisix.runner.compiled  # noqa: F401  # before any module of this room: it settles what runs compiled
