"""A policy service to try the example with: anna may do anything, bob may read, others nothing."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8181
Answer = tuple[int, bytes]


def policy(question: dict[str, Any]) -> Answer:
    """What the service answers to a question."""
    user = question["headers"]["authorization"]
    if user == ["Bearer anna"] or (user == ["Bearer bob"] and question["method"] == "GET"):
        return 200, b'{"allow": true}'
    return 200, json.dumps(
        {"allow": False, "reason": "bob may only read" if user == ["Bearer bob"] else "who?"}
    ).encode()


class PolicyService:
    """The service on a port of loopback.

    Attributes:
        answer: what is answered; tests give it others.
        asked: the questions that came.
        address: host and port.
    """

    def __init__(self, port: int = 0, answer: Callable[[dict[str, Any]], Answer] = policy) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append(question)
                status, body = service.answer(question)
                with suppress(ConnectionError):  # who asked may not have waited
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def serve(self) -> None:
        """Serve until `stop`."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """End `serve`, and free the port."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def service() -> Iterator[PolicyService]:
    """The service in a thread."""
    running = PolicyService()
    thread = threading.Thread(target=running.serve)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join()


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """The service; gives what stands for its address in the routes."""
    with service() as policy_service:
        yield {f"127.0.0.1:{PORT}": policy_service.address}


if __name__ == "__main__":
    print(f"The policy service listens on 127.0.0.1:{PORT}. Ctrl-C stops it.")
    PolicyService(PORT).serve()
