"""Files that are streamed to a service and from it, with a line on the terminal that says how far it is."""

import asyncio
import contextlib
import os
import secrets
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from flashsale.cli import client
from flashsale.errors import SetupError

PROGRESS_EVERY_S: Final = 0.2
SECRET_MODE: Final = 0o600
_MIB: Final = 1024 * 1024


class Progress:
    """One line on a terminal, written over and over; nothing where there is no terminal."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._next_s = 0.0
        self._written = False

    def due(self) -> bool:
        """Whether it is time to say something again."""
        if not self._shown or time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + PROGRESS_EVERY_S
        return True

    def say(self, text: str) -> None:
        """Say how far it is."""
        if self._shown:
            self._written = True
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave an empty line."""
        if self._written:
            self.say("")


def open_input(name: str) -> BinaryIO:
    """A file to send; `-` is standard input."""
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise SetupError(f"{name} cannot be read: {error.strerror}.") from None


async def pieces(file: BinaryIO, progress: Progress) -> AsyncIterator[bytes]:
    """The file, piece by piece."""
    found = os.fstat(file.fileno())
    waits = stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode) or os.isatty(file.fileno())
    stream, sent = asyncio.StreamReader(), 0
    if waits:  # in the event loop, where Ctrl-C ends the waiting
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
    while piece := await stream.read(client.CHUNK_BYTES) if waits else file.read(client.CHUNK_BYTES):
        sent += len(piece)
        if progress.due():
            share = f", {100 * sent // found.st_size} %" if found.st_size else ""  # a pipe has no size
            progress.say(f"{sent / _MIB:.1f} MiB{share}")
        yield piece
    progress.say(f"{sent / _MIB:.1f} MiB sent; the service stores them")


class NewFile:
    """A file that only its owner can read, and that is there only when it is complete.

    It grows under another name beside its place, and is renamed at the end of a `with` block that raised nothing.
    What is no plain file (a device, a pipe, a folder) is not replaced.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._place = Path(os.path.realpath(name))
        self._growing = self._place.with_name(f".{self._place.name[:200]}.{secrets.token_hex(4)}.part")
        if self._place.exists() and not self._place.is_file():
            raise SetupError(f"{name} is no plain file; name another, or a new one.")

    def __enter__(self) -> Self:
        try:
            self._file = os.fdopen(os.open(self._growing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE), "wb")
        except OSError as error:
            raise self._fault(error) from None
        return self

    def write(self, data: bytes) -> None:
        """Write the next piece."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._fault(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with contextlib.suppress(OSError):  # what it could not write is lost with it
                self._file.close()
            self._growing.unlink(missing_ok=True)

    def _finish(self) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._growing.replace(self._place)
        except OSError as error:
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> SetupError:
        return SetupError(f"{self._name} cannot be written: {error.strerror}.")
