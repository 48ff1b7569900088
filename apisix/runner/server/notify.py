"""systemd: a socket that it passes (LISTEN_FDS) and the states that it wants to hear (sd_notify).

Source: sd_listen_fds(3) and sd_notify(3).
"""

import contextlib
import os
import socket

from apisix.runner.errors import StartError

FIRST_FD = 3


def passed_socket() -> socket.socket | None:
    """The listening unix socket that systemd passes; None where it passes none.

    Raises:
        StartError: it passes several, or something else.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "0")
    if count != "1":
        raise StartError(f"LISTEN_FDS: expected one socket from systemd, got {count}; write one ListenStream= only")
    passed = socket.socket(fileno=FIRST_FD)
    is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not is_listening:
        raise StartError("LISTEN_FDS: expected a listening unix stream socket from systemd; write ListenStream=/path")
    os.set_inheritable(FIRST_FD, False)
    return passed


def notify(state: str) -> None:
    """Tell systemd a state, such as ``READY=1``; nothing where it does not ask."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
