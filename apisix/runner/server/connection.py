"""One connection of the gateway: bytes in, bytes out, never blocking unless told to.

Rules that live here:
- The socket is non-blocking. While its call is open a connection belongs to the call: the thread or coroutine that
  runs it may wait on it, and nobody else polls it. So it is while an answer is sent that does not fit at once.
- A frame may come in pieces; what is held for unfinished frames is counted by the poller.
"""

import socket
from typing import TYPE_CHECKING

from apisix.runner.compiled import CODEC
from apisix.runner.wire.frame import FrameBuffer

if CODEC == "compiled":
    from apisix.runner.server._io import Channel

if TYPE_CHECKING:
    from apisix.runner.server.early import Early

CHUNK = 16384  # bytes of one read; a call's frame is seldom larger


class Held:
    """Bytes held for what has not come whole, over all connections of a worker.

    Args:
        most: bytes that may be held.
    """

    __slots__ = ("bytes", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0

    @property
    def is_too_much(self) -> bool:
        """Whether more is held than may be."""
        return self.bytes > self.most


class Connection:
    """A connected socket and what was read from it beyond whole frames.

    Args:
        sock: connected; becomes non-blocking.

    Attributes:
        early: the call that waits on it for what was asked before it runs.
    """

    __slots__ = ("_channel", "broken", "early", "fd", "pieces", "receive", "registered", "send", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self._channel = Channel(self.fd) if CODEC == "compiled" else sock
        self.receive = self._channel.recv
        self.send = self._channel.send
        self.pieces: FrameBuffer | None = None
        self.broken = False
        self.registered = False
        self.early: Early | None = None

    @property
    def held(self) -> int:
        """Bytes held for a frame that is not complete."""
        return len(self.pieces) if self.pieces is not None else 0

    def take(self, data: bytes) -> bytes | None:
        """Put data that was read to what is held, and take the next whole frame, if it is complete."""
        pieces = self.pieces
        if pieces is None:
            length = len(data)
            if length >= 4 and 4 + (data[1] << 16 | data[2] << 8 | data[3]) == length:
                return data
            pieces = self.pieces = FrameBuffer()
        pieces.feed(data)
        frame = pieces.take()
        if not len(pieces):
            self.pieces = None
        return frame

    def send_now(self, data: bytes) -> int:
        """Send what fits without waiting. Returns the bytes sent.

        Raises:
            OSError: the peer is gone.
        """
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def has_more(self) -> bool:
        """Whether the peer has sent more already, which a close would lose."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket."""
        self.broken = True
        self._channel.close()
        self.sock.close()

    def cut(self) -> None:
        """End the connection for whoever waits on it, without giving its number to another one."""
        self.broken = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
