"""Bytes to messages and back: the gateway's ext-plugin protocol.

No I/O, no clock, and nothing of ours is asked but what runs compiled. `frame` cuts the byte stream into frames,
`flatbuf` reads FlatBuffers with every offset checked, `flatbuf_writer` writes them. `schema` has the messages
(apache/apisix `ext-plugin.fbs`), `pure` reads and writes them, `_speedups` does the hot ones compiled; `messages` is
all of it together.
"""

import apisix.runner.compiled  # noqa: F401  # before any module of this room: it settles what runs compiled
