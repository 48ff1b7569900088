"""The suite's upstream: keeps what arrives, and answers as a test tells it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, cast

UNRECORDED = "/published-"
"""Paths that begin like this ask whether the routes are there; no test means them."""

ASIDE = "/aside"
"""What plugins call themselves, after an answer: kept apart from what the gateway sent on."""


class Seen(NamedTuple):
    """One request as it arrived; text is latin-1, so that bytes survive."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next(iter(self.all(name)), None)

    @property
    def path(self) -> str:
        """The target without its query, as it stood on the wire."""
        return self.target.partition("?")[0]

    @property
    def args(self) -> list[str]:
        """The parts of the query in alphabetical order: gateways do not keep theirs."""
        return sorted(self.target.partition("?")[2].split("&"))


class Upstream:
    """An HTTP server on a free port.

    Args:
        host: the address to listen on.

    Attributes:
        seen: requests in order of arrival.
        aside: what arrived below `ASIDE`.
    """

    def __init__(self, host: str) -> None:
        self.seen: list[Seen] = []
        self.aside: list[Seen] = []
        self._arrived = threading.Condition()
        self._gate = threading.Event()
        self._server = _Server((host, 0), _Handler)
        self._server.upstream = self
        self.port: int = self._server.server_address[1]
        self.reset()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="upstream", daemon=True).start()

    def reset(self) -> None:
        """Forget what arrived, and answer plainly again."""
        self.seen = []
        self.aside = []
        self._gate.set()
        self.answers()

    def answers(
        self,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (("Content-Type", "text/plain"),),
        body: bytes = b"from the upstream",
        chunked: bool = False,
    ) -> None:
        """Answer like this from now on. A `Content-Length` or chunks are added."""
        self._answer = (status, headers, body, chunked)

    @property
    def request(self) -> Seen:
        """The one request that arrived."""
        assert len(self.seen) == 1, f"expected the upstream to be called once, it was {len(self.seen)} times"
        return self.seen[0]

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Meanwhile, what arrives below `ASIDE` is not answered."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def wait_aside(self, seconds: float = 10) -> Seen:
        """The first request below `ASIDE`, when it has come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.aside, seconds), "nothing arrived aside"
            return self.aside[0]

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def take(self, seen: Seen) -> bytes:
        """Keep a request, and the bytes to answer it with."""
        if seen.path.startswith(ASIDE):
            with self._arrived:
                self.aside.append(seen)
                self._arrived.notify_all()
            self._gate.wait(10)
        elif not seen.path.startswith(UNRECORDED):
            self.seen.append(seen)
        return self._response(seen.method)

    def _response(self, method: str) -> bytes:
        status, headers, body, chunked = self._answer
        lines = [f"HTTP/1.1 {status} From Upstream", *(f"{name}: {value}" for name, value in headers)]
        bodyless = status in (204, 304)
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            middle = len(body) // 2
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:]) if part)
            body += b"0\r\n\r\n"
        elif not bodyless:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
        return head if bodyless or method == "HEAD" else head + body


class _Server(ThreadingHTTPServer):
    upstream: Upstream
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    def handle_one_request(self) -> None:
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # The request line as it came: `self.path` has its leading slashes folded.
        target = self.raw_requestline.decode("latin-1").split(" ")[1]
        server = cast(_Server, self.server)
        self.wfile.write(server.upstream.take(Seen(self.command, target, self.headers.items(), body)))
