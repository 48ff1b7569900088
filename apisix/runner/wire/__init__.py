"""Bytes to messages and back: the gateway's ext-plugin protocol.

No I/O, no clock, and nothing of ours is imported here. `frame` cuts the byte stream into frames, `flatbuf` reads
FlatBuffers with every offset checked, `flatbuf_writer` writes them, `messages` knows the schema (apache/apisix
`ext-plugin.fbs`).
"""
