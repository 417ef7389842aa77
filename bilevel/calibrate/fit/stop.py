"""A run that is asked to stop by a file: it ends after the evaluation at hand, with its report, and can go on later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

STOP = ".stop"
"""case.stop in the folder of results ends a run."""

_file: ContextVar[Path | None] = ContextVar("stop file", default=None)


class Stopped(BaseException):
    """Ends what is under way; no failure, so that it passes by all that catches failures."""


@contextmanager
def stoppable(file: Path) -> Iterator[None]:
    """Within it, work ends when `file` appears; one that lies there from before is removed."""
    file.unlink(missing_ok=True)
    token = _file.set(file)
    try:
        yield
    finally:
        _file.reset(token)


def stop_asked() -> bool:
    """Whether the work under way should end."""
    file = _file.get()
    return file is not None and file.exists()


def raise_if_asked() -> None:
    """Stopped where the work under way should end."""
    if stop_asked():
        raise Stopped
