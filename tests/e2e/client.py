"""The suite's HTTP client: what a test sends and what it gets back, byte for byte."""

import http.client
import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PATIENCE = 30
"""Seconds until a request without an answer fails its test."""

Headers = Sequence[tuple[str, str | bytes]]


class Answer(NamedTuple):
    """One response; text is latin-1, so that bytes survive."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next(iter(self.all(name)), None)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.body)


class Client:
    """Sends requests to one host of a gateway, each on a connection of its own.

    Args:
        url: the gateway's address, such as http://127.0.0.1:9080.
        host: what the Host header says.
    """

    def __init__(self, url: str, host: str) -> None:
        self._address = urlsplit(url).netloc
        self.host = host

    def get(self, target: str = "/", headers: Headers = ()) -> Answer:
        """Send a GET."""
        return self.send("GET", target, headers)

    def post(self, target: str = "/", headers: Headers = (), body: bytes = b"") -> Answer:
        """Send a POST; an empty body is one too, with Content-Length 0."""
        return self.send("POST", target, headers, body)

    def send(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> Answer:
        """Send any request."""
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in (("Host", self.host), *headers):
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()
