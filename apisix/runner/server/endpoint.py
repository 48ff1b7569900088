"""The endpoint: answers GET over HTTP, for those who collect metrics and ask for health.

Rules that live here:
- It lives in the supervisor's loop and never waits: who sends or reads slowly has PATIENCE, and there are at most
  MOST_CLIENTS at a time. It takes no request body, and each connection carries one request.
- An address that cannot be had is said once and tried again every round: the runner before may still have it. Calls are
  served meanwhile.
"""

import contextlib
import logging
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("apisix.runner.metrics")

MOST_CLIENTS = 32
MOST_BYTES = 8192
"""Bytes of a request's head."""

PATIENCE = 5.0
"""Seconds for a request and its answer."""

Address = tuple[str, int] | Path
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Page(NamedTuple):
    """What is answered."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Page]]
"""By path."""


class _Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.answer: memoryview | None = None
        self.until = time.monotonic() + PATIENCE


class Endpoint:
    """A listening socket and its clients.

    Args:
        address: an IP address and port, or the path of a unix socket.
        mode: permissions of a unix socket.
        poll: the supervisor's; the socket and its clients are registered there.
        pages: what there is.
    """

    def __init__(self, address: Address, mode: int, poll: select.poll, pages: Pages) -> None:
        self._address = address
        self._mode = mode
        self._poll = poll
        self._pages = pages
        self._listener: socket.socket | None = None
        self._rests = False
        self._clients: dict[int, _Client] = {}
        self._told = False
        self.look()

    def look(self) -> None:
        """Listen, if that was not possible before; let go of clients that are too slow."""
        now = time.monotonic()
        for client in [client for client in self._clients.values() if now > client.until]:
            self._drop(client)
        if self._listener is None:
            self._listen()
        elif self._rests:
            self._rests = False
            self._poll.register(self._listener, select.POLLIN)

    def owns(self, fd: int) -> bool:
        """Whether an event's file descriptor is one of its sockets."""
        return fd in self._clients or (self._listener is not None and fd == self._listener.fileno())

    def event(self, fd: int) -> None:
        """Handle an event of one of its sockets."""
        client = self._clients.get(fd)
        if client is None:
            self._accept()
            return
        try:
            if client.answer is None:
                self._receive(client)
            if client.answer is not None:
                self._send(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def close(self) -> None:
        """Close everything, in a process that is not the supervisor."""
        if self._listener is not None:
            self._listener.close()
        for client in self._clients.values():
            client.sock.close()

    def remove(self) -> None:
        """End: close everything, and remove a unix socket that is still its own."""
        if self._listener is not None and isinstance(self._address, Path):
            with contextlib.suppress(OSError):
                if self._address.stat().st_ino == self._inode:
                    self._address.unlink()
        self.close()

    # Listening.

    def _listen(self) -> None:
        try:
            listener = self._bind()
        except OSError as error:
            if not self._told:
                self._told = True
                log.error(
                    "metrics.listen %s cannot be had (%s): there are no metrics until it can; told once",
                    _shown(self._address),
                    error.strerror or error,
                )
            return
        self._listener = listener
        self._poll.register(listener, select.POLLIN)
        place = _shown(self._address if isinstance(self._address, Path) else listener.getsockname())
        log.info("metrics on %s", place if isinstance(self._address, Path) else f"http://{place}/metrics")

    def _bind(self) -> socket.socket:
        if isinstance(self._address, Path):
            return self._bind_path(self._address)
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1" if host == "localhost" else host, port))
            listener.listen(MOST_CLIENTS)
        except OSError:
            listener.close()
            raise
        return listener

    def _bind_path(self, path: Path) -> socket.socket:
        """As the runner's own socket: a stale one is replaced by rename, a live one or another file is left."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise FileExistsError(0, "another file is there")
            if _is_live(path):
                raise FileExistsError(0, "somebody listens there")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        temporary = path.with_name(f".{os.getpid():x}")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            listener.bind(os.fsencode(temporary))
            temporary.chmod(self._mode)
            listener.listen(MOST_CLIENTS)
            self._inode = temporary.stat().st_ino
            temporary.rename(path)
        except OSError:
            listener.close()
            raise
        return listener

    # Clients.

    def _accept(self) -> None:
        listener = self._listener
        if listener is None:
            return
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # out of file descriptors: rest until the next round
            self._rests = True
            self._poll.unregister(listener)
            return
        if len(self._clients) >= MOST_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        self._clients[sock.fileno()] = _Client(sock)
        self._poll.register(sock, select.POLLIN)

    def _receive(self, client: _Client) -> None:
        data = client.sock.recv(MOST_BYTES)
        client.received += data
        head, end, _ = client.received.partition(b"\r\n\r\n")
        if not end and data and len(client.received) <= MOST_BYTES:
            return
        if not data:
            raise ConnectionResetError
        client.answer = memoryview(self._answer(head if end else b""))
        self._poll.modify(client.sock, select.POLLOUT)

    def _answer(self, head: bytes) -> bytes:
        """The whole answer to a request's head."""
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        make = self._pages.get(target.partition("?")[0])
        if not version.startswith("HTTP/1."):
            page = Page(400, "expected an HTTP/1 request\n")
        elif method not in ("GET", "HEAD"):
            page = Page(405, "expected GET\n")
        elif make is None:
            page = Page(404, f"there are {', '.join(self._pages)}\n")
        else:
            page = _made(make)
        body = page.text.encode()
        lines = [
            f"HTTP/1.1 {page.status} {_REASONS[page.status]}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if page.status == 405:
            lines.append("Allow: GET, HEAD")
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body)

    def _send(self, client: _Client) -> None:
        assert client.answer is not None
        client.answer = client.answer[client.sock.send(client.answer) :]
        if not client.answer:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        self._poll.unregister(client.sock)
        client.sock.close()


def _made(make: Callable[[], Page]) -> Page:
    """A page, whatever goes wrong with it: nothing that is asked here may end the supervisor."""
    try:
        return make()
    except Exception:
        log.exception("a page cannot be made: a mistake of the runner, please report it")
        return Page(500, "this page cannot be made; the log says why\n")


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fsencode(path))
        except BlockingIOError:  # its backlog is full
            return True
        except OSError:
            return False
    return True


def _shown(address: "Address | tuple[str, int, int, int]") -> str:
    if isinstance(address, Path):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
