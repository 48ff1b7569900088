"""`apisix-runner call`: one plugin on one request, in this process or in a runner; what it did is shown as a diff."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.author import HEAD, run, write
from tests.server.processes import Runner

PLUGINS = (
    HEAD
    + """
class Edits(Base):
    def filter(self, request, response):
        request.path = "/new"
        request.args["page"] = "2"
        del request.headers["x-old"]
        request.headers["x-new"] = self.config or "1"
        response.headers["x-seen"] = request.var("seen") or "-"

class Refuses(Base):
    def filter(self, request, response):
        self.stop(403, {"error": "no", "body": (request.body or b"").decode()})

class Fails(Base):
    def filter(self, request, response):
        print("about to fail")
        raise LookupError("no such book")

class Masks(Base):
    async def filter_response(self, request, response):
        response.headers["x-path"] = await request.read_var("uri")
        response.body = (await response.read_body()).replace(b"4111", b"****")
        response.status_code = 203

class Marks(Base):
    def filter(self, request, response):
        request.context["mark"] = "kept"

    def filter_response(self, request, response):
        response.headers["x-mark"] = request.context["mark"]

class Image(Base):
    def filter(self, request, response):
        self.stop(200, bytes([255, 216]))
"""
)


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("author")
    write(folder / "plugins" / "all.py", PLUGINS)
    return folder


EDITED = """\
{}, request phase: the request goes on, changed

- GET /?page=1
- x-old: a
+ GET /new?page=2
  x-other: b
  host: test
+ x-new: new

The client's response gets:
+ x-seen: yes
"""
EDIT = ("--conf", "new", "--path", "/?page=1", "-H", "X-Old: a", "-H", "X-Other: b", "--var", "seen=yes")


def test_what_became_of_a_request_is_shown_as_a_diff(author: Path) -> None:
    ended = run(author, "call", "edits", *EDIT)
    assert (ended.code, ended.out, ended.err) == (0, EDITED.format("Edits"), "")


def test_an_answer_is_shown_whole(author: Path) -> None:
    ended = run(author, "call", "refuses", "--data", "book")
    assert ended.code == 0
    assert ended.lines == [
        "Refuses, request phase: answers the client; the upstream is not called",
        "",
        "+ HTTP 403 Forbidden",
        "+ Content-Type: application/json",
        "+",
        '+ {"error":"no","body":"book"}',
    ]


def test_what_became_of_a_response_is_shown_as_a_diff(author: Path) -> None:
    given = ("--upstream-header", "Server: shop", "--upstream-data", '{"card": "4111"}', "--path", "/pay")
    ended = run(author, "call", "masks", *given)
    assert ended.lines == [
        "Masks, response phase: the response goes on, changed",
        "",
        "- HTTP 200 OK",
        "+ HTTP 203 Non-Authoritative Information",
        "  Server: shop",
        "+ x-path: /pay",
        "",
        '- {"card": "4111"}',
        '+ {"card": "****"}',
    ]


def test_a_plugin_of_both_phases_runs_in_both_and_keeps_its_context(author: Path) -> None:
    ended = run(author, "call", "marks")
    assert "Marks, request phase: the request goes on, unchanged" in ended.lines
    assert "+ x-mark: kept" in ended.lines


def test_data_and_conf_may_come_from_files_and_stdin(author: Path) -> None:
    write(author / "conf.txt", "from a file")
    assert "+ x-new: from a file" in run(author, "call", "edits", "--conf", "@conf.txt", "-H", "x-old: a").lines
    assert '"body":"from stdin"' in run(author, "call", "refuses", "--data", "@-", stdin=b"from stdin").out
    ended = run(author, "call", "refuses", "--data", "@nowhere")
    assert (ended.code, "nowhere: No such file or directory" in ended.err) == (2, True)


def test_json_says_the_same(author: Path) -> None:
    told = json.loads(run(author, "call", "edits", *EDIT, "--json").out)
    assert (told["plugin"], told["failure"], told["request"]["stopped"]) == ("Edits", None, False)
    assert (told["request"]["before"]["path"], told["request"]["after"]["path"]) == ("/", "/new")
    assert ["x-new", "new"] in told["request"]["after"]["headers"]
    assert told["request"]["response_headers"] == [["x-seen", "yes"]]
    answer = json.loads(run(author, "call", "refuses", "--json").out)["request"]["answer"]
    assert (answer["status"], answer["body"]) == (403, '{"error":"no","body":""}')


def test_a_body_that_is_no_text_is_told_by_its_length_and_in_base64(author: Path) -> None:
    assert run(author, "call", "image").lines[-1] == "+ (2 bytes that are no text)"
    answer = json.loads(run(author, "call", "image", "--json").out)["request"]["answer"]
    assert (answer["body"], answer["body_base64"]) == (None, "/9g=")


def test_an_exception_is_shown_with_the_plugins_own_traceback(author: Path) -> None:
    ended = run(author, "call", "fails")
    assert (ended.code, ended.out) == (1, "about to fail\n")
    assert ended.err == (
        "Traceback (most recent call last):\n"
        '  File "plugins/all.py", line 18, in filter\n'
        '    raise LookupError("no such book")\n'
        "LookupError: no such book\n"
        "plugin 'Fails' failed: the client gets status 503\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nobody",), 1, "plugin 'nobody': unknown plugin, loaded are: Edits, Fails,"),
        (("edits", "--phase", "response"), 1, "plugin 'Edits' has no filter_response: it does not run in the response"),
        (("edits", "--path", "books"), 2, "expected a target that begins with '/', got 'books'"),
        (("edits", "--method", "FETCH"), 2, "expected a method of GET, HEAD,"),
        (("edits", "--remote-addr", "me"), 2, "'me' does not appear to be an IPv4 or IPv6 address"),
        (("edits", "--header", "nothing"), 2, "expected 'Name: value', got 'nothing'"),
        (("edits", "--var", "nothing"), 2, "expected NAME=VALUE, got 'nothing'"),
    ],
)
def test_what_cannot_be_called_is_told(author: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    ended = run(author, "call", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err.replace("\n", " ")


# In a runner.


@pytest.fixture(scope="module")
def runner(author: Path) -> Iterator[Runner]:
    with Runner(author / "plugins") as running:
        yield running.wait_until_ready()


class TestSocket:
    def test_a_live_runner_is_asked_as_apisix_asks_it(self, author: Path, runner: Runner) -> None:
        there = ("--socket", str(runner.path))
        assert run(author, "call", "edits", *EDIT, *there).out == EDITED.format("edits")
        assert '"body":"book"' in run(author, "call", "refuses", "--data", "book", *there).out
        masked = run(author, "call", "masks", "--upstream-data", "4111", "--phase", "response", *there)
        assert masked.lines[-2:] == ["- 4111", "+ ****"]
        assert "+ x-mark: kept" in run(author, "call", "marks", "--phase", "both", *there).lines
        told = json.loads(run(author, "call", "edits", *EDIT, "--json", *there).out)
        assert told["request"]["after"]["path"] == "/new"

    def test_a_call_that_fails_there_is_told(self, author: Path, runner: Runner) -> None:
        for name in ("fails", "nobody"):
            ended = run(author, "call", name, "--socket", f"unix:{runner.path}")
            assert (ended.code, ended.out) == (1, "")
            assert "the client gets status 503; its log says why" in ended.err

    def test_without_a_runner_there_that_is_told(self, author: Path) -> None:
        ended = run(author, "call", "edits", "--socket", "/nowhere/runner.sock")
        assert ended.code == 1
        assert ended.err == "apisix-runner: no runner listens on /nowhere/runner.sock: No such file or directory\n"

    @pytest.mark.parametrize("answer", [b"", b"\1\0\0\4\xff\xff\xff\xff", b"\x09\0\0\0", b"\3\0\0\0", b"\0\0\0\0"])
    def test_what_is_no_runner_is_told_in_one_line(self, author: Path, tmp_path: Path, answer: bytes) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        ended = run(author, "call", "edits", "--socket", str(tmp_path / "s"))
        thread.join()
        listening.close()
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (1, "", 1)
