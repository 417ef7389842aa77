"""Recording the layers that a function passes through, and running it again at better states.

A gradient of an outer function can be assessed only by evaluating it again where the inner residuals are smaller: the
cotangents that reach a layer depend on its state too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from bilevel.implicit.certificate import Polish
from bilevel.implicit.linearised_solve import LinearisedSolve
from bilevel.implicit.strategies import Exact
from bilevel.report import BilevelError


@dataclass
class Recording:
    """The layers passed, in order."""

    solves: list[LinearisedSolve] = field(default_factory=list)
    reevaluating: bool = False
    position: int = 0


_active: ContextVar[Recording | None] = ContextVar("recording", default=None)


def enter(linearised: LinearisedSolve) -> LinearisedSolve:
    """Called by each layer: the layer to use in its place."""
    recording = _active.get()
    if recording is None:
        return linearised
    if not recording.reevaluating:
        recording.solves.append(linearised)
        return linearised
    return _improved(recording, linearised)


def _improved(recording: Recording, linearised: LinearisedSolve) -> LinearisedSolve:
    if recording.position >= len(recording.solves):
        raise BilevelError("the function passed through more layers when it was run again; it must be deterministic")
    earlier = recording.solves[recording.position]
    recording.position += 1
    return replace(
        linearised, solver=Polish(earlier), adjoint=Exact(certify=False), on_fail="ignore", factor=earlier.factor
    )


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
def reevaluating(recorded: Recording) -> Iterator[None]:
    """Inside the block each layer starts from its recorded state and improves it."""
    token = _active.set(Recording(recorded.solves, reevaluating=True))
    try:
        yield
    finally:
        _active.reset(token)
