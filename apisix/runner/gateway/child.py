"""The runner as a child process of `dev`, as APISIX's privileged agent has it.

Rules that live here: it is started like APISIX starts it, with `APISIX_LISTEN_ADDRESS` telling the socket and a pipe
for stdin whose end tells that `dev` is gone; it is in a session of its own, so that Ctrl-C reaches `dev` alone, which
stops it in order and, unlike APISIX, does not make it wait for a successor; when it dies, all tokens are flushed and it
is started again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from apisix.runner.errors import StartError

log = logging.getLogger(__name__)

READY_WITHIN = 15.0
"""Seconds until a started runner must accept connections."""

RESPAWN_AFTER = 1.0
"""Seconds from a runner's death to the next one (APISIX waits 3)."""

STOP_WITHIN = 5.0
"""Seconds from SIGINT, which ends a runner at once, to SIGKILL."""

LOOK = 0.02
"""Seconds between two looks at the socket."""


class RunnerChild:
    """A runner process that is kept running.

    Args:
        socket: where it has to listen.
        flags: for `apisix-runner start`.
        on_death: called when it has died.
        output: the file descriptor that gets all it writes; without one, stderr does.
        environment: variables besides those of this process.
    """

    def __init__(
        self,
        socket: Path,
        flags: Sequence[str],
        on_death: Callable[[], None],
        output: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.socket = socket
        self._flags = tuple(flags)
        self._on_death = on_death
        self._output = output
        self._environment = {
            **os.environ,
            **(environment or {}),
            "APISIX_LISTEN_ADDRESS": f"unix:{socket}",
            "APISIX_CONF_EXPIRE_TIME": "3600",
        }
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the runner that is running, if one is."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the runner, and return when it accepts connections.

        Raises:
            StartError: it ended before, or does not listen in time.
        """
        await self._spawn()
        await self._wait_until_ready()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop the runner; kill it where it does not go. Harmless when it does not run."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)  # ends one that is still starting
            process.send_signal(signal.SIGINT)  # and the second signal ends one that runs at once
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await process.wait()
            except TimeoutError:
                log.warning("the runner (pid %d) did not stop within %g s; killing it", process.pid, STOP_WITHIN)
        self._kill_group()
        await process.wait()

    def _kill_group(self) -> None:
        """Kill what is left of the runner, its workers too."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "apisix.runner", "start", "--workers", "1", *self._flags),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=sys.stderr.fileno() if self._output is None else self._output,
            stderr=self._output,
            start_new_session=True,
        )

    async def _wait_until_ready(self) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not await accepts(self.socket):
                    if self._process.returncode is not None:
                        raise StartError(f"the runner did not start ({self._ending()}); it says why above")
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            self._kill_group()
            raise StartError(f"the runner does not listen on {self.socket} after {READY_WITHIN:g} s") from None

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            self._kill_group()
            log.error("the runner died (%s); starting it again in %g s", self._ending(), RESPAWN_AFTER)
            self._on_death()
            await asyncio.sleep(RESPAWN_AFTER)
            await self._spawn()
            try:
                await self._wait_until_ready()
                log.info("the runner is there again, pid %d", self._process.pid)
            except StartError as error:
                log.error("%s", error)

    def _ending(self) -> str:
        assert self._process is not None
        code = self._process.returncode or 0
        return f"exit code {code}" if code >= 0 else f"signal {-code}"


async def accepts(socket: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True
