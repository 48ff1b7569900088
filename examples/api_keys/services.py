"""What the page of this example puts in place before it starts: the file of keys."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """A copy of the file; gives what stands for its path in the routes."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(Path(__file__).parent / "keys.txt", folder)
        yield {"/tmp/keys.txt": str(copy)}
