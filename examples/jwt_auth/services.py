"""An issuer that publishes its keys, as far as this example and its tests need one."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Issuer:
    """Listens on a free port, and answers each GET with what it is told.

    Attributes:
        status: of its answers.
        body: of its answers.
        asked: how many requests came.
        lets_go: answers wait for it.
    """

    def __init__(self, body: bytes) -> None:
        self.status, self.body, self.asked = 200, body, 0
        self.lets_go = threading.Event()
        self.lets_go.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.lets_go.wait()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(issuer.body)))
                self.end_headers()
                try:
                    self.wfile.write(issuer.body)
                except OSError:  # who has asked did not wait
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Issuer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lets_go.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """An issuer with the keys of `jwks.json`; gives what stands for its address in the routes."""
    with Issuer((Path(__file__).parent / "jwks.json").read_bytes()) as issuer:
        yield {"http://127.0.0.1:8090": issuer.url}
