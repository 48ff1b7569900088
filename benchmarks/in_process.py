"""The server's own path in this process, without its threads: to look into one call, not to load it.

It reaches into the poller, which offers no way to serve a single call: nothing else needs one.
"""

import os
import socket
import tempfile

from apisix.runner.metrics.region import Region
from apisix.runner.plugin.discovery import load_plugins
from apisix.runner.server.confs import Confs, PreparedConf
from apisix.runner.server.connection import CHUNK, Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.dispatch import Dispatcher
from apisix.runner.server.lanes import Lane
from apisix.runner.server.measuring import measure
from apisix.runner.server.poller import Poller
from apisix.runner.server.watch import Watch
from apisix.runner.wire.messages import decode_prepare_conf_resp
from benchmarks.cases import HERE, TOKEN, traffic

IDLE = 15  # connections beside the one that is served


class InProcess:
    """A worker's dispatcher and poller, with a gateway's connection whose other end is `peer`.

    The poller's own threads do not run: who wants a call served, serves it.

    Args:
        metrics: whether calls are measured.
    """

    def __init__(self, metrics: bool = False) -> None:
        watch = Watch()
        if metrics:
            measure(watch, Region(), 50.0)
        self.confs = Confs(load_plugins([HERE / "plugins"]), 3600.0, make_step=watch.make_step)
        self.dispatcher = Dispatcher(self.confs, 50.0, None, Contexts(None), watch)
        with tempfile.TemporaryDirectory(prefix="a6bench-") as folder:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(os.path.join(folder, "unused.sock"))
        self.poller = Poller(
            self._listener, self.dispatcher, threads=1, setup_timeout=2.5, most_connections=64, most_pending=2**28
        )
        self._idle = [self._connect() for _ in range(IDLE)]
        self.peer, self.connection = self._connect()
        self.epoll = self.poller._epoll

    def _connect(self) -> tuple[socket.socket, Connection]:
        peer, sock = socket.socketpair(socket.AF_UNIX)
        self.poller._welcome(sock)
        return peer, self.poller._connections[sock.fileno()]

    def close(self) -> None:
        """Close all its sockets."""
        for peer, connection in [*self._idle, (self.peer, self.connection)]:
            peer.close()
            connection.close()
        self.epoll.close()
        self._listener.close()

    def prepare(self, case: str) -> tuple[PreparedConf, bytes]:
        """Prepare a case's conf, to run inline. Returns it, and the frame that calls it."""
        sent = traffic(case)
        token = decode_prepare_conf_resp(self.dispatcher.prepare(sent.prepare.read_bytes()))
        conf = self.confs.get(token)
        assert conf is not None
        conf.request.lane = conf.response.lane = Lane(blocking=False)
        return conf, sent.call.read_bytes().replace(TOKEN, token.to_bytes(4, "little"))

    def serve(self, frame: bytes) -> bytes:
        """One call, from the gateway's send to its receive."""
        self.peer.send(frame)
        self.epoll.poll(-1, 256)
        self.poller._serve(self.connection, self.poller._slot)
        return self.peer.recv(CHUNK)
