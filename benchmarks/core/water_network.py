"""One hour of EPANET's network Net3, cold and warm, against the bare factorisations of the matrices met and EPANET's engine."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

from scipy.sparse.linalg import splu

import bilevel
from benchmarks.record import Record, at_most, stated
from bilevel.linalg.direct.superlu import SuperLU
from bilevel.linalg.operator import LinearOperator, Sparse
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail
from physics.flow.water.epanet import read_epanet
from physics.flow.water.network import LinkStatus
from physics.flow.water.pipe_flow import PipeFlow

LINE = "EPANET's network Net3: a cold and a warm state against bare factorisations and EPANET's own engine"
DURATION = "10 seconds"

FILE = Path(__file__).parents[2] / "examples" / "net3" / "Net3.inp"
STATUS = {"10": LinkStatus.CLOSED, "335": LinkStatus.OPEN, "330": LinkStatus.CLOSED}
CHANGE = 1.01
"""The demands of the warm state over those of the state from which it starts."""


class Watched(LinearSolver):
    """SuperLU, and the matrices that it is given."""

    def __init__(self) -> None:
        self.met: list[Sparse] = []

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        assert isinstance(A, Sparse)
        self.met.append(A)
        return SuperLU().factor(A, on_fail)


def run(quick: bool) -> list[Record]:
    repeats = 20 if quick else 100
    network = read_epanet(FILE)
    flow = PipeFlow(network, STATUS)
    params = flow.parameters()
    later = {**params, "demand": CHANGE * params["demand"]}
    before = flow.solve(params).u
    watched = Watched()
    bilevel.root(flow, before, later, solver=bilevel.Newton(linear=watched))
    matrices = [tangent.csr().tocsc() for tangent in watched.met]
    load = before.numpy()
    cold = _seconds(lambda: flow.solve(params), repeats)
    warm = _seconds(lambda: flow.solve(later, before), repeats)
    bare = _seconds(lambda: [splu(matrix).solve(load) for matrix in matrices], repeats)
    return [
        stated("cold state", 1e3 * cold, "ms"),
        stated("warm state, demands 1 % higher", 1e3 * warm, "ms"),
        stated(f"bare factorisations and solves of its {len(matrices)} matrices", 1e3 * bare, "ms"),
        at_most("warm state over bare", warm / bare, 5.0),
        _engine(repeats),
    ]


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """The least processor time of one call: what else the machine does only adds to it."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def _engine(repeats: int) -> Record:
    """EPANET's own time for a state, from the library in wntr's wheel."""
    spec = importlib.util.find_spec("wntr")
    file = Path(spec.origin).parent / "epanet/libepanet/linux-x64/libepanet22.so" if spec and spec.origin else None
    if file is None or not file.exists():
        return stated("EPANET's engine", None, target="not installed")
    library, project = ctypes.CDLL(str(file)), ctypes.c_uint64()
    library.EN_createproject(ctypes.byref(project))
    library.EN_open(project, str(FILE).encode(), os.devnull.encode(), b"")
    library.EN_openH(project)

    def state() -> None:
        library.EN_initH(project, 0)
        library.EN_runH(project, ctypes.byref(ctypes.c_long()))

    seconds = _seconds(state, repeats)
    library.EN_closeH(project)
    library.EN_close(project)
    library.EN_deleteproject(project)
    return stated("EPANET's engine, cold state", 1e3 * seconds, "ms")
