"""Logs as they arrive: on a real pipe, as under APISIX, unless the form of a line is the point."""

import fcntl
import io
import json
import logging
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from apisix.runner import logs
from apisix.runner.logs.handler import Handler
from apisix.runner.logs.lines import render_text
from apisix.runner.logs.sinks import LINE_LIMIT, FileSink, StreamSink

logger = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logging of the process as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def text() -> io.StringIO:
    """What is logged in the text form, from debug on."""
    stream = io.StringIO()
    logs.setup("debug", "text", stream)
    return stream


@pytest.fixture
def objects() -> io.StringIO:
    """What is logged in the JSON form, from debug on."""
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    return stream


class Pipe:
    """A pipe to log into; what came out of it so far is `read`."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.writer: TextIO = os.fdopen(writer, "w")

    def read(self) -> bytes:
        found = b""
        try:
            while piece := os.read(self.reader, 65536):
                found += piece
        except BlockingIOError:
            pass
        return found

    def fill(self) -> None:
        os.set_blocking(self.writer.fileno(), False)
        try:
            while True:
                os.write(self.writer.fileno(), b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer.fileno(), True)

    def break_(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def close(self) -> None:
        self.writer.close()
        if self.reader >= 0:
            os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


class TestText:
    def test_a_line_tells_time_level_logger_message_and_fields(self, text: io.StringIO) -> None:
        logger.warning("sold %d", 7, extra={"route": "1", "ok": True})
        line = text.getvalue()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARN  shop sold 7 route=1 ok=True\n", line)

    def test_the_time_is_utc(self) -> None:
        record = logging.makeLogRecord(
            {"created": 1795233600.1239, "levelno": logging.INFO, "name": "shop", "msg": "sold"}
        )
        assert render_text(record, 100) == [b"2026-11-21T04:00:00.123Z INFO  shop sold\n"]

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("a b", '"a b"'),
            ("", '""'),
            ('"', '"\\""'),
            ("a=b", '"a=b"'),
            ("a\nb", '"a\\nb"'),
            (None, "None"),
            (1.5, "1.5"),
        ],
    )
    def test_a_value_that_could_be_misread_is_quoted(self, text: io.StringIO, value: object, shown: str) -> None:
        logger.info("sold", extra={"key": value})
        assert text.getvalue().endswith(f" key={shown}\n")

    def test_further_lines_of_a_message_are_indented(self, text: io.StringIO) -> None:
        logger.info("sold\n2026-11-21T04:00:00.123Z ERROR shop forged\n", extra={"n": 1})
        first, second = text.getvalue().splitlines()
        assert first.endswith(" sold n=1")
        assert second == "    2026-11-21T04:00:00.123Z ERROR shop forged"

    def test_control_characters_are_escaped(self, text: io.StringIO) -> None:
        logger.info("a\x1b[2Jb\rc\x85d\u2028e\0f")
        assert text.getvalue().endswith(" a\\x1b[2Jb\\rc\\x85d\\u2028e\\x00f\n")

    def test_bytes_that_were_not_utf8_are_escaped(self, text: io.StringIO) -> None:
        logger.info("a\udcffb")
        assert text.getvalue().endswith(" a\\udcffb\n")

    def test_a_traceback_follows_indented(self, text: io.StringIO) -> None:
        try:
            raise ValueError("nothing left")
        except ValueError:
            logger.exception("not sold", extra={"n": 1})
        first, *rest = text.getvalue().splitlines()
        assert first.endswith(" ERROR shop not sold n=1")
        assert rest[0] == "    Traceback (most recent call last):"
        assert rest[-1] == "    ValueError: nothing left"

    def test_exc_info_without_an_exception_adds_nothing(self, text: io.StringIO) -> None:
        logger.info("sold", exc_info=True)
        assert text.getvalue().endswith(" sold\n")

    def test_a_stack_follows_indented(self, text: io.StringIO) -> None:
        logger.info("sold", stack_info=True)
        assert "\n    Stack (most recent call last):\n" in text.getvalue()

    def test_arguments_that_do_not_fit_the_message_are_shown(self) -> None:
        record = logging.makeLogRecord({"msg": "sold %d", "args": ("many",)})
        (line,) = render_text(record, 200)
        assert b" sold %d ('many',) (these do not fit: " in line

    def test_warnings_are_events(self, text: io.StringIO) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logs.setup("info", "text", text)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert " WARN  py.warnings " in text.getvalue()


class TestJSON:
    def test_a_line_is_one_object(self, objects: io.StringIO) -> None:
        logger.warning("sold %d\nnow", 7, extra={"route": "1", "ok": True, "share": 0.5, "what": {"a"}})
        line = objects.getvalue()
        assert line.count("\n") == 1
        event = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time"))
        assert event == {
            "level": "warn",
            "logger": "shop",
            "message": "sold 7\nnow",
            "route": "1",
            "ok": True,
            "share": 0.5,
            "what": "{'a'}",
        }

    def test_the_traceback_is_a_field(self, objects: io.StringIO) -> None:
        try:
            raise ValueError("nothing left")
        except ValueError:
            logger.exception("not sold")
        assert json.loads(objects.getvalue())["traceback"].endswith("\nValueError: nothing left")

    def test_fields_do_not_replace_what_is_always_there(self, objects: io.StringIO) -> None:
        logger.info("sold", extra={"level": "none", "logger": "none"})
        event = json.loads(objects.getvalue())
        assert (event["level"], event["logger"]) == ("info", "shop")

    def test_what_json_cannot_hold_becomes_text(self, objects: io.StringIO) -> None:
        logger.info("a\udcff", extra={"n": float("nan"), "b": b"x"})
        event = json.loads(objects.getvalue())
        assert (event["message"], event["n"], event["b"]) == ("a\\udcff", "nan", "b'x'")


class TestLevels:
    @pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
    def test_what_is_less_serious_is_left_out(self, level: str, count: int) -> None:
        stream = io.StringIO()
        logs.setup(level, "text", stream)
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)("sold")
        assert stream.getvalue().count("\n") == count

    def test_a_second_setup_replaces_the_first(self, text: io.StringIO) -> None:
        other = io.StringIO()
        logs.setup("info", "text", other)
        logger.info("sold")
        assert (text.getvalue(), other.getvalue().count("\n")) == ("", 1)


class TestLimit:
    """APISIX reads pieces of 3,800 bytes: no line may be longer, and none may straddle two writes."""

    @pytest.mark.parametrize("message", ["x" * 5000, "ü" * 5000, "\x1b" * 5000, "\udcff" * 5000])
    def test_a_long_text_line_is_cut_and_says_so(self, pipe: Pipe, message: str) -> None:
        logs.setup("info", "text", pipe.writer)
        logger.info(message)
        line = pipe.read()
        assert LINE_LIMIT - 4 <= len(line) <= LINE_LIMIT
        assert re.search(r"\.\.\. \[cut from \d+ bytes\]\n\Z", line.decode())

    @pytest.mark.parametrize("message", ["x" * 5000, "ü" * 5000, '"' * 5000, "\x1b" * 50000])
    def test_a_long_json_line_is_cut_and_stays_json(self, pipe: Pipe, message: str) -> None:
        logs.setup("info", "json", pipe.writer)
        logger.info(message, extra={"route": "1"})
        line = pipe.read()
        assert len(line) <= LINE_LIMIT
        event = json.loads(line)
        assert event["message"].endswith("... [cut]")
        assert event["route"] == "1"

    def test_too_many_fields_are_left_out_of_json(self, pipe: Pipe) -> None:
        logs.setup("info", "json", pipe.writer)
        logger.info("sold", extra={f"key{n}": n for n in range(1000)})
        line = pipe.read()
        assert len(line) <= LINE_LIMIT
        assert json.loads(line).items() >= {"message": "sold", "cut": True}.items()

    def test_a_long_event_has_all_its_lines(self, pipe: Pipe) -> None:
        logs.setup("info", "text", pipe.writer)
        logger.info("\n".join(str(number) * 100 for number in range(100)))
        assert len(pipe.read().splitlines()) == 100

    def test_on_a_terminal_nothing_is_cut(self) -> None:
        reader, writer = pty.openpty()
        with os.fdopen(reader, "rb", buffering=0), os.fdopen(writer, "w") as stream:
            handler = Handler(lambda record, limit: [str(limit).encode()], StreamSink(stream))
            handler.emit(logging.makeLogRecord({}))
            assert int(os.read(reader, 100)) > 2**31

    def test_lines_of_several_processes_do_not_mix(self) -> None:
        script = (
            "import logging, sys; from apisix.runner import logs; logs.setup('info', 'text')\n"
            "for n in range(300): logging.info(sys.argv[1] * (3000 + n))"
        )
        reader, writer = os.pipe()
        writers = [subprocess.Popen([sys.executable, "-c", script, letter], stderr=writer) for letter in "abc"]
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            lines = stream.read().splitlines()
        assert [process.wait() for process in writers] == [0, 0, 0]
        assert [line for line in lines if not re.fullmatch(rb"\S+ INFO  root (a+|b+|c+)", line)] == []


class TestTrouble:
    """Whatever happens to stderr, who logs does not notice."""

    def test_a_reader_that_went_away(self, pipe: Pipe) -> None:
        logs.setup("info", "text", pipe.writer)
        pipe.break_()
        logger.info("sold")

    def test_a_pipe_that_nobody_reads_does_not_block(self, pipe: Pipe) -> None:
        logs.setup("info", "text", pipe.writer)
        pipe.fill()
        thread = threading.Thread(target=logger.info, args=("sold",), daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive()

    def test_what_was_lost_is_told_once_the_pipe_is_read_again(self, pipe: Pipe) -> None:
        logs.setup("info", "text", pipe.writer)
        pipe.fill()
        logger.info("lost")
        logger.info("lost too")
        pipe.read()
        logger.info("sold")
        logger.info("sold again")
        told, sold, again = pipe.read().decode().splitlines()
        assert told.endswith(" WARN  apisix.runner.logs events before this one could not be written lost=2")
        assert sold.endswith(" sold")
        assert again.endswith(" sold again")

    def test_a_descriptor_that_does_not_wait(self, pipe: Pipe) -> None:
        logs.setup("info", "text", pipe.writer)
        pipe.fill()
        os.set_blocking(pipe.writer.fileno(), False)
        logger.info("sold")

    def test_a_closed_stream(self) -> None:
        stream = io.StringIO()
        logs.setup("info", "text", stream)
        stream.close()
        logger.info("sold")

    def test_no_stderr_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        logs.setup("info", "text")
        logger.info("sold")

    def test_a_value_that_cannot_be_shown(self, text: io.StringIO) -> None:
        class Mute:
            def __str__(self) -> str:
                raise RuntimeError

        logger.info("lost", extra={"mute": Mute()})
        logger.info("sold")
        assert text.getvalue().endswith(" sold\n")

    def test_the_flags_of_the_stream_stay_as_they_were(self, pipe: Pipe) -> None:
        before = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
        logs.setup("info", "text", pipe.writer)
        logger.info("sold")
        assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before


class TestFile:
    """A file in place of a stream. On real runners: tests/server/test_logs.py."""

    def test_a_file_that_is_in_trouble_again_and_again_is_told_once(
        self, pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("apisix.runner.logs.sinks.OPEN_AGAIN", 0)
        folder = tmp_path / "logs"
        logs.setup("info", "text", pipe.writer, folder / "x.log")
        for number in range(3):
            logger.info("to stderr %d", number)
            folder.mkdir()
            logger.info("to the file %d", number)
            shutil.rmtree(folder)
            logs.reopen()  # fails, and the one that was open goes on
            logging.getLogger().handlers[-1].close()
        read = pipe.read().decode()
        assert read.count("cannot be written") == 1
        assert [f"to stderr {number}" in read for number in range(3)] == [True] * 3

    def test_a_line_that_was_cut_off_is_ended_before_the_next(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path / "x.log")
        sink.write(b"one\n")
        sink._is_cut = True  # as a full disk leaves it
        sink.write(b"two\n")
        sink.write(b"three\n")
        assert (tmp_path / "x.log").read_bytes() == b"one\n\ntwo\nthree\n"
        sink.close()


class TestHush:
    """A library that says the same thing again and again."""

    @staticmethod
    def _say(library: logging.Logger) -> None:
        library.warning("no collector at %s", "anywhere")

    def test_it_is_heard_once_from_each_place(self, text: io.StringIO) -> None:
        logs.hush("library", 60)
        library = logging.getLogger("library.exporter")
        for _ in range(5):
            self._say(library)
        library.warning("something else")
        assert [line.split()[2:] for line in text.getvalue().splitlines()] == [
            ["library.exporter", "no", "collector", "at", "anywhere"],
            ["library.exporter", "something", "else"],
        ]

    def test_and_again_after_a_while(self, text: io.StringIO) -> None:
        logs.hush("library", 0)
        for _ in range(2):
            self._say(logging.getLogger("library"))
        assert text.getvalue().count("no collector") == 2

    def test_others_are_heard_each_time(self, text: io.StringIO) -> None:
        logs.hush("library", 60)
        for _ in range(5):
            self._say(logging.getLogger("librarys_friend"))
        assert text.getvalue().count("no collector") == 5
