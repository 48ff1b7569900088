"""Contexts: what plugins keep from the request phase of a request for its response phase (`request.context`).

Rules that live here: a context is a file of its own beside the stored confs, so that whichever worker serves the
response phase finds it; its name is the gateway's ``$request_id``, a random number that neither client nor upstream
chooses; it is small, and gone after ten minutes.
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from apisix.runner.server.store import make_private

log = logging.getLogger("apisix.runner.contexts")

MOST_BYTES = 65536
KEEP = 600.0  # seconds: longer than a request takes
_is_id = re.compile(r"[0-9A-Za-z-]{8,64}").fullmatch


class Contexts:
    """The contexts of one socket's requests.

    Args:
        folder: made if need be; None where there is no store.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            try:
                folder.mkdir(0o700, exist_ok=True)
            except OSError:
                self._folder = None

    def _path(self, request_id: str) -> Path:
        if self._folder is None:
            raise RuntimeError("request.context cannot be kept for the response phase: the runner has no store on disk")
        if not _is_id(request_id):
            raise RuntimeError(f"request.context needs the gateway's variable request_id, which is {request_id!r}")
        return self._folder / request_id

    def keep(self, request_id: str, context: Mapping[str, Any]) -> None:
        """Keep a context for the response phase.

        Raises:
            RuntimeError: there is no store, or the request has no id.
            ValueError: the context is too large.
            TypeError: it holds what JSON cannot.
            OSError: it cannot be written.
        """
        path = self._path(request_id)
        raw = msgspec.json.encode(context)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"request.context has {len(raw)} bytes as JSON, at most {MOST_BYTES} can be kept")
        try:
            self._write(path, raw)
        except FileNotFoundError:  # somebody has removed the folder
            make_private(path.parent, depth=3)
            self._write(path, raw)

    def _write(self, path: Path, raw: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{time.monotonic_ns():x}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
        temporary.rename(path)

    def read(self, request_id: str) -> bytes | None:
        """What was kept, as JSON; None where nothing was.

        Raises:
            RuntimeError: there is no store, or the request has no id.
        """
        try:
            return self._path(request_id).read_bytes()
        except OSError:
            return None

    def sweep(self) -> None:
        """Remove what is older than any request."""
        if self._folder is None:
            return
        oldest = time.time() - KEEP
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)
