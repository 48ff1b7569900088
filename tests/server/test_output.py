"""What plugins print."""

import os
from contextlib import closing

from apisix.runner.server.output import printing_to


def test_a_line_is_written_at_once() -> None:
    reader, writer = os.pipe()
    with closing(printing_to(writer, "utf-8", "strict")) as stream:
        print("a line", file=stream)
        assert os.read(reader, 100) == b"a line\n"
    os.close(reader)


def test_what_nobody_can_read_any_more_is_lost_and_no_error() -> None:
    reader, writer = os.pipe()
    with closing(printing_to(writer, "utf-8", "strict")) as stream:
        os.close(reader)
        for size in (10, 100_000):
            print("x" * size, file=stream)
