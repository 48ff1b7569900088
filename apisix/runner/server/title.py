"""What `ps` and `top` show for the runner's processes, where the package setproctitle is installed."""


def set_title(title: str) -> None:
    """Name this process.

    Args:
        title: what it is, as `worker 2 on /run/runner.sock`.
    """
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"apisix-runner: {title}")
