"""Files that are either there in full or not at all, and one run at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bilevel.report import InputError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a temporary file beside `path`, force it to disk, and put it in the place of `path` in one step."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
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
