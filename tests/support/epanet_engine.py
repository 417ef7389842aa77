"""EPANET's own engine, from the library inside wntr's wheel, without importing wntr and what it depends on."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path

import pytest

NODE_COUNT, LINK_COUNT = 0, 2
ELEVATION, HEAD = 0, 10
FLOW, STATUS, SETTING = 8, 11, 12
ACCURACY, HEAD_ERROR, FLOW_CHANGE = 1, 5, 6


@dataclass(frozen=True)
class EngineState:
    """time [s]; heads, flows, statuses (0: closed), settings and levels by name, in the units of the file."""

    time: int
    heads: dict[str, float]
    flows: dict[str, float]
    status: dict[str, float]
    setting: dict[str, float]
    elevation: dict[str, float]


def wheel() -> Path:
    """The folder of wntr; skips the test where it is not installed for this platform."""
    spec = importlib.util.find_spec("wntr")
    if spec is None or spec.origin is None:
        pytest.skip("EPANET's engine and its test networks are in wntr's wheel: pip install 'bilevel[epanet]'")
    return Path(spec.origin).parent


def library() -> ctypes.CDLL:
    file = wheel() / "epanet/libepanet/linux-x64/libepanet22.so"
    if platform.system() != "Linux" or platform.machine() != "x86_64" or not file.exists():
        pytest.skip("EPANET's engine is looked for in wntr's wheel for Linux on x86-64")
    return ctypes.CDLL(str(file))


def networks() -> Path:
    """EPANET's public test networks."""
    return wheel() / "library/networks"


def simulate(file: Path, folder: Path) -> list[EngineState]:
    """The engine's states, at each of its time steps."""
    lib, project = library(), ctypes.c_uint64()
    call = _caller(lib, project)
    lib.EN_createproject(ctypes.byref(project))
    call("open", str(file).encode(), str(folder / "report").encode(), b"")
    for option, value in ((ACCURACY, 1e-5), (HEAD_ERROR, 1e-7), (FLOW_CHANGE, 1e-7)):
        call("setoption", ctypes.c_int(option), ctypes.c_double(value))
    nodes, links = (_names(call, *kind) for kind in ((NODE_COUNT, "getnodeid"), (LINK_COUNT, "getlinkid")))
    call("openH")
    call("initH", ctypes.c_int(0))
    states, time, step = [], ctypes.c_long(), ctypes.c_long(1)
    while step.value > 0:
        call("runH", ctypes.byref(time))
        states.append(
            EngineState(
                time.value,
                _values(call, "getnodevalue", nodes, HEAD),
                *(_values(call, "getlinkvalue", links, what) for what in (FLOW, STATUS, SETTING)),
                _values(call, "getnodevalue", nodes, ELEVATION),
            )
        )
        call("nextH", ctypes.byref(step))
    call("closeH")
    call("close")
    lib.EN_deleteproject(project)
    return states


def _caller(lib, project):  # type: ignore[no-untyped-def]
    def call(name, *arguments):  # type: ignore[no-untyped-def]
        code = getattr(lib, f"EN_{name}")(project, *arguments)
        assert code < 100, f"EPANET's EN_{name} failed with code {code}"  # below 100: warnings

    return call


def _names(call, count, getter):  # type: ignore[no-untyped-def]
    number, text = ctypes.c_int(), ctypes.create_string_buffer(64)
    call("getcount", ctypes.c_int(count), ctypes.byref(number))
    names = []
    for k in range(1, number.value + 1):
        call(getter, ctypes.c_int(k), text)
        names.append(text.value.decode())
    return names


def _values(call, getter, names, what):  # type: ignore[no-untyped-def]
    value, found = ctypes.c_double(), {}
    for k, name in enumerate(names, start=1):
        call(getter, ctypes.c_int(k), ctypes.c_int(what), ctypes.byref(value))
        found[name] = value.value
    return found
