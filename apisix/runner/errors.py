"""The errors that belong to no single room."""


class StartError(Exception):
    """The runner cannot start. Its text is the one line that the user sees; the process ends with exit code 3.

    Example: ``raise StartError("socket.file: /run/x.sock: expected a socket, got a folder; remove it")``.
    """

    exit_code = 3
