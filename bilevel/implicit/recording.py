"""Recording the layers that a function passes through, and running it again at better states.

A gradient of an outer function can be judged only by evaluating it again where the inner residuals are smaller: the
cotangents that reach a layer depend on its state too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from bilevel.implicit.certificate import Polish
from bilevel.implicit.linearised_solve import Inner
from bilevel.implicit.strategies import Exact
from bilevel.report import BilevelError


@dataclass
class Recording:
    """The layers passed, in order."""

    inners: list[Inner] = field(default_factory=list)
    replaying: bool = False
    position: int = 0


_active: ContextVar[Recording | None] = ContextVar("recording", default=None)


def enter(inner: Inner) -> Inner:
    """Called by each layer: the layer to use in its place."""
    recording = _active.get()
    if recording is None:
        return inner
    if not recording.replaying:
        recording.inners.append(inner)
        return inner
    return _improved(recording, inner)


def _improved(recording: Recording, inner: Inner) -> Inner:
    if recording.position >= len(recording.inners):
        raise BilevelError("the function passed through more layers when it was run again; it must be deterministic")
    earlier = recording.inners[recording.position]
    recording.position += 1
    return replace(inner, solver=Polish(earlier), adjoint=Exact(certify=False), on_fail="ignore", factor=earlier.factor)


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the layers that are passed inside the block."""
    made = Recording()
    token = _active.set(made)
    try:
        yield made
    finally:
        _active.reset(token)


@contextmanager
def replaying(recorded: Recording) -> Iterator[None]:
    """Inside the block each layer starts from its recorded state and improves it."""
    token = _active.set(Recording(recorded.inners, replaying=True))
    try:
        yield
    finally:
        _active.reset(token)
