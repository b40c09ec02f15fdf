"""A command at work: what it prints is kept, its limits are kept to, and nobody that it started outlives it.

At its end, or at a limit, it is ended with everything it has started: its process group, and on Linux whoever else has
its mark, which is a variable of its environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from controller.harness.processes import kill_marked
from controller.records import UserError

MOST_LOG, TAIL = 4_000_000, 64_000
"""Bytes of a command's output that are kept, and how many of these are its end."""
DRAIN_SECONDS = 1.0
"""How long is listened for what a command had still to say when it was ended."""

Keep: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a command may run, and be silent."""

    total: float = 30 * 60.0
    silence: float = 10 * 60.0


async def run(
    command: str, directory: Path, environment: Mapping[str, str], mark: str, output: Path, limits: Limits
) -> str | None:
    """Run `command` in bash, to its end or to one of its limits; why what it did does not count, None where it does.

    It has our environment, and of its own `environment`, in which `mark` is the name of a variable that nobody else has
    with that value. What it prints goes to the file `output`: the beginning and the end, if it is too much.
    """
    with output.open("wb") as file, closing(_Output(file)) as kept:
        async with _at_work(command, directory, environment, mark, kept.add) as (process, reader):
            why = await _followed(process, reader, kept.add, limits)
    if why is None and process.returncode:
        code = process.returncode
        why = f"it ended with exit code {code}" if code > 0 else f"it was killed by signal {-code}"
    return why


@asynccontextmanager
async def _at_work(
    command: str, directory: Path, environment: Mapping[str, str], mark: str, keep: Keep
) -> AsyncIterator[tuple[Process, asyncio.StreamReader]]:
    """The command as a process, and what it prints; when this is left, everything that it has started is ended."""
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    # A pipe of our own: asyncio's would have us wait for whoever still holds it when the command has ended.
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
    )
    process = None
    try:
        with os.fdopen(theirs, "wb", 0) as output:
            process = await _bash(command, directory, environment, output)
        yield process, reader
    finally:
        # Its group, and whoever left that: also where it was called off before we knew of it.
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        kill_marked(f"{mark}={environment[mark]}")
        if process is not None:
            await process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while heard := await reader.read(TAIL):
                    keep(heard)
        transport.close()


async def _bash(command: str, directory: Path, environment: Mapping[str, str], output: IO[bytes]) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise UserError("bash is not installed, or not on the PATH; a command is run by it") from None


async def _followed(process: Process, reader: asyncio.StreamReader, keep: Keep, limits: Limits) -> str | None:
    """Wait for its end, or for one of its limits: which of them it was."""
    ending = asyncio.ensure_future(process.wait())
    listening = asyncio.ensure_future(_fell_silent(process, reader, keep, limits.silence))
    both: set[asyncio.Future[Any]] = {ending, listening}
    try:
        done, _ = await asyncio.wait(both, timeout=limits.total, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return f"it took longer than {_spelled(limits.total)}"
        if ending not in done and listening.result():
            return f"it printed nothing for {_spelled(limits.silence)}"
        return None
    finally:
        for one in both:
            one.cancel()
        await asyncio.wait(both)


async def _fell_silent(process: Process, reader: asyncio.StreamReader, keep: Keep, seconds: float) -> bool:
    """Keep what is printed, until nothing is for so many seconds, or nobody is left to print."""
    try:
        while True:
            async with asyncio.timeout(seconds):
                heard = await reader.read(TAIL)
                if not heard:
                    await process.wait()
                    return False
            keep(heard)
    except TimeoutError:
        return True


@dataclass
class _Output:
    """Writes what it is given to `file`: what comes first at once, and the end when it is closed."""

    file: IO[bytes]
    size: int = 0
    end: bytes = b""

    def add(self, data: bytes) -> None:
        room = max(MOST_LOG - TAIL - self.size, 0)
        self.file.write(data[:room])
        self.file.flush()
        self.end = (self.end + data[room:])[-TAIL:]
        self.size += len(data)

    def close(self) -> None:
        if self.size > MOST_LOG:
            self.file.write(b"\n[%d bytes are left out here]\n" % (self.size - MOST_LOG))
        self.file.write(self.end)


def _spelled(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} s"
