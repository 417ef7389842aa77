"""Reading with limits, files that are either there in full or not at all, and one run at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bilevel.report import InputError

RESULT, REPORT = "result.json", "report.html"
"""What a run leaves: all numbers, and the page to read."""


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of an ordinary file of at most `limit` bytes; InputError, in a sentence, for anything else.

    Devices and pipes are refused: /dev/zero never ends, and a pipe waits for ever.
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
        if not path.is_file():
            raise InputError(f"{path}: is a folder or a device; expected a file")
        if (size := path.stat().st_size) > limit:
            raise InputError(f"{path}: has {size / 1e6:.0f} MB; at most {limit / 1e6:.0f} MB are read")
        return path.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_text(path: Path, limit: int) -> str:
    """Likewise as UTF-8 text, with or without a byte order mark."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as text: {error}; save it in UTF-8") from None


def write_atomically(path: Path, content: bytes | str, forced: bool = True) -> None:
    """Write a temporary file beside `path`, force it to disk, and put it in the place of `path` in one step.

    What is not forced outlives a killed process, but not a power cut, which may leave an empty file.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        if forced:
            os.fsync(stream.fileno())
    os.replace(temporary, path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; InputError if another run holds it. A killed process lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as stream:
        try:
            _lock(stream.fileno())
        except OSError:
            raise InputError(
                f"{folder}: another run is in progress here; wait for it or choose another folder with --out"
            ) from None
        yield


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
