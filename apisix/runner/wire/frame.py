"""Frames: one byte of type, three bytes of big-endian length, then a FlatBuffers body.

Rules that live here: the length field has 24 bits, so a body is at most 2^24-1 bytes, both ways; a frame may arrive in
any number of pieces, and pieces may hold more than one frame; anything that breaks a rule is one exception, WireError.
Source: `send` and `receive` in APISIX's ext-plugin/init.lua.
"""

from enum import IntEnum

HEADER_SIZE = 4
MAX_BODY = 2**24 - 1


class FrameType(IntEnum):
    """The type byte of a frame."""

    ERROR = 0
    PREPARE_CONF = 1
    HTTP_REQ_CALL = 2
    EXTRA_INFO = 3
    HTTP_RESP_CALL = 4


class WireError(ValueError):
    """Bytes that break the protocol, or a message that the protocol cannot carry.

    Args:
        field: where in the schema, for example ``HTTPReqCall.Req.headers[2].name``.
        offset: byte offset from the start of the frame (its header included); 0 where no byte is to blame.
        problem: what was expected and what came.

    Example:
        >>> str(WireError("HTTPReqCall.Req.path", 72, "string of 9 bytes ends after the frame"))
        'HTTPReqCall.Req.path at offset 72: string of 9 bytes ends after the frame'
    """

    def __init__(self, field: str, offset: int, problem: str) -> None:
        super().__init__(field, offset, problem)
        self.field = field
        self.offset = offset
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field} at offset {self.offset}: {self.problem}"


def frame_header(type: int, body_length: int) -> bytes:
    """The four bytes before a body.

    Args:
        type: the type byte, 0 to 255.
        body_length: bytes of the body.

    Raises:
        WireError: the body is longer than 2^24-1 bytes: the length would run into the type byte.
    """
    if body_length > MAX_BODY:
        raise WireError("frame.length", 0, f"a frame's body has at most {MAX_BODY} bytes, this one has {body_length}")
    return (type << 24 | body_length).to_bytes(4, "big")


def pack_frame(type: int, body: bytes) -> bytes:
    """A whole frame: header and body.

    Raises:
        WireError: the body is longer than 2^24-1 bytes.

    Example:
        >>> pack_frame(FrameType.ERROR, b"ab").hex()
        '000000026162'
    """
    return frame_header(type, len(body)) + body


def frame_length(header: bytes) -> int:
    """Bytes of the whole frame, header included, from (at least) its first four bytes.

    Raises:
        WireError: fewer than four bytes.
    """
    if len(header) < HEADER_SIZE:
        raise WireError("frame.header", 0, f"expected {HEADER_SIZE} bytes, got {len(header)}")
    return HEADER_SIZE + (header[1] << 16 | header[2] << 8 | header[3])


class FrameBuffer:
    """Puts frames together from pieces of any size.

    Example:
        >>> pieces = FrameBuffer()
        >>> pieces.feed(bytes.fromhex("0000000261")); pieces.take()
        >>> pieces.feed(b"b"); pieces.take().hex()
        '000000026162'
    """

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        """Bytes that are held and not yet taken."""
        return len(self._data)

    @property
    def first_byte(self) -> int | None:
        """The type byte of the frame that comes next, or None while nothing of it is there."""
        return self._data[0] if self._data else None

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the socket."""
        self._data += data

    def take(self) -> bytes | None:
        """The next whole frame, or None while it is not complete."""
        data = self._data
        if len(data) < HEADER_SIZE:
            return None
        length = HEADER_SIZE + (data[1] << 16 | data[2] << 8 | data[3])
        if len(data) < length:
            return None
        with memoryview(data) as view:  # a slice of the bytearray itself would be one more copy
            frame = bytes(view[:length])
        del data[:length]
        return frame
