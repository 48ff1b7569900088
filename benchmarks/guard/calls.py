"""The calls that the guard counts. Runs under valgrind: `python -m benchmarks.guard.calls`.

Each is run some times, then as often again twice, with a mark before, between and after: the difference of the two
stretches is that of the calls alone. A mark is a call of a libc function that nothing else calls, which valgrind is
told to look for.
"""

import gc
import os
from collections.abc import Callable

from apisix.runner.wire import messages
from apisix.runner.wire.frame import FrameBuffer
from apisix.runner.wire.messages import InfoKind, Rewrite, Stop
from benchmarks.cases import TOKEN, traffic
from benchmarks.in_process import InProcess

MARK = "sched_get_priority_max"
WITH_METRICS = ", metrics on"
WARM = 60  # the interpreter adapts to a function within the first dozens of calls
TIMES = 60
ACTIONS: dict[str, Stop | Rewrite] = {
    "stop": Stop(201, [("X-Resp-A6-Runner", "Python")], b"Hello, Python Runner of APISIX"),
    "rewrite": Rewrite("/a6/python/runner", [("X-Resp-A6-Runner", "Python")], [("a6_runner", "Python")]),
}
HEADERS = messages.HTTPReqCallReq(traffic("stop").call.read_bytes()).headers
ARGS = [("a", "1"), ("b", "2")]

mark = getattr(os, MARK)


def codec_calls() -> dict[str, Callable[[], object]]:
    """Each function of the codec, with the frames of the benchmarks."""
    call = traffic("stop").call.read_bytes()
    respond = traffic("respond").call.read_bytes()
    prepare = traffic("stop").prepare.read_bytes()
    token = int.from_bytes(TOKEN, "little")
    ask = messages.encode_extra_info_req(InfoKind.VAR, "remote_addr")
    told = messages.encode_extra_info_resp(b"127.0.0.1")
    stop, rewrite, echo = ACTIONS["stop"], ACTIONS["rewrite"], Stop(200, HEADERS, b"Hello")
    stopped, rewritten = messages.encode_http_req_call_resp(1, stop), messages.encode_http_req_call_resp(1, rewrite)
    responded = messages.encode_http_resp_call_resp(1, 200, HEADERS, b"Hello")
    prepared = messages.encode_prepare_conf_resp(token)
    error = messages.encode_error(messages.ErrorCode.BAD_REQUEST)
    m = messages

    def reassemble() -> object:
        pieces = FrameBuffer()
        pieces.feed(call[:100])
        pieces.take()
        pieces.feed(call[100:])
        return pieces.take()

    return {
        "FrameBuffer, two pieces": reassemble,
        "HTTPReqCallReq": lambda: m.HTTPReqCallReq(call),
        "HTTPReqCallReq.path": lambda: m.HTTPReqCallReq(call).path,
        "HTTPReqCallReq.args": lambda: m.HTTPReqCallReq(call).args,
        "HTTPReqCallReq.headers": lambda: m.HTTPReqCallReq(call).headers,
        "HTTPRespCallReq": lambda: m.HTTPRespCallReq(respond),
        "HTTPRespCallReq.headers": lambda: m.HTTPRespCallReq(respond).headers,
        "encode_http_req_call_resp, nothing": lambda: m.encode_http_req_call_resp(1, None),
        "encode_http_req_call_resp, stop": lambda: m.encode_http_req_call_resp(1, stop),
        "encode_http_req_call_resp, rewrite": lambda: m.encode_http_req_call_resp(1, rewrite),
        "encode_http_req_call_resp, echo": lambda: m.encode_http_req_call_resp(1, echo),
        "encode_http_resp_call_resp": lambda: m.encode_http_resp_call_resp(1, 200, HEADERS, b"Hello"),
        "encode_extra_info_req": lambda: m.encode_extra_info_req(InfoKind.VAR, "remote_addr"),
        "decode_extra_info_resp": lambda: m.decode_extra_info_resp(told),
        "decode_prepare_conf_req": lambda: m.decode_prepare_conf_req(prepare),
        "encode_prepare_conf_resp": lambda: m.encode_prepare_conf_resp(token),
        "encode_error": lambda: m.encode_error(m.ErrorCode.BAD_REQUEST),
        # The gateway's side: the embedded gateway and the tests use it.
        "encode_http_req_call_req": lambda: m.encode_http_req_call_req(1, b"\x7f\0\0\1", 0, "/", ARGS, HEADERS, token),
        "decode_http_req_call_resp, stop": lambda: m.decode_http_req_call_resp(stopped),
        "decode_http_req_call_resp, rewrite": lambda: m.decode_http_req_call_resp(rewritten),
        "encode_http_resp_call_req": lambda: m.encode_http_resp_call_req(1, 200, HEADERS, token),
        "decode_http_resp_call_resp": lambda: m.decode_http_resp_call_resp(responded),
        "encode_prepare_conf_req": lambda: m.encode_prepare_conf_req([("stop", "{}")], "route#1#ext-plugin-pre-req#1"),
        "decode_prepare_conf_resp": lambda: m.decode_prepare_conf_resp(prepared),
        "decode_extra_info_req": lambda: m.decode_extra_info_req(ask),
        "encode_extra_info_resp": lambda: m.encode_extra_info_resp(b"127.0.0.1"),
        "decode_error": lambda: m.decode_error(error),
    }


def path_calls() -> dict[str, Callable[[], object]]:
    """Whole calls: poll, receive, decode, plugin, encode, send. The kernel's part does not count."""
    calls: dict[str, Callable[[], object]] = {}
    for remark, worker in (("", InProcess()), (WITH_METRICS, InProcess(metrics=True))):
        for case in ("stop", "rewrite", "echo"):
            _, frame = worker.prepare(case)
            calls[f"whole call, {case}{remark}"] = lambda worker=worker, frame=frame: worker.serve(frame)  # type: ignore[misc]
    return calls


def repeat(call: Callable[[], object], times: int) -> None:
    """Run a call some times."""
    for _ in range(times):
        call()


def main() -> None:
    """Run each call between marks, and print their names in order."""
    calls = codec_calls() | path_calls()
    gc.collect()
    gc.freeze()
    gc.disable()
    for call in calls.values():
        repeat(call, WARM)
        mark(0)
        repeat(call, TIMES)
        mark(0)
        repeat(call, 2 * TIMES)
        mark(0)
    print("\n".join(calls))


if __name__ == "__main__":
    main()
