"""Networks in EPANET's format: heads and flows against EPANET's own engine, and files that are refused."""

from __future__ import annotations

import epanet_engine
import pytest

from bilevel.report import BilevelError, InputError
from physics.flow.water.epanet import read_epanet
from physics.flow.water.file_units import FLOW_UNITS, US_UNITS
from physics.flow.water.friction import FOOT
from physics.flow.water.network import LinkStatus, Valve
from physics.flow.water.pipe_flow import PipeFlow


def largest_differences(file, folder, every=1, hours=None, units="GPM"):
    """Of heads [m], and of flows relative to the larger of the engine's and a hundred-thousandth of the network's."""
    network = read_epanet(file)
    states = epanet_engine.simulate(file, folder)[:hours:every]
    length, flow_unit = FOOT if units in US_UNITS else 1.0, FLOW_UNITS[units]
    heads, flows = 0.0, 0.0
    for state in states:
        status = {
            link.name: LinkStatus.OPEN if state.status[link.name] else LinkStatus.CLOSED
            for link in network.links
            if not isinstance(link, Valve)
        }
        levels = {
            tank.name: (state.heads[tank.name] - state.elevation[tank.name]) * length
            for tank in network.fixed_heads
            if tank.tank
        }
        flow = PipeFlow(network, status)
        params = flow.parameters(state.time, levels)
        u = flow.solve(params).u
        head, flux = flow.heads(u, params).tolist(), flow.flows(u).tolist()
        typical = 1e-5 * max(map(abs, state.flows.values())) * flow_unit
        heads = max(heads, *(abs(head[network.nodes[name]] - h * length) for name, h in state.heads.items()))
        for name, q in state.flows.items():
            error = abs(flux[network.link_numbers[name]] - q * flow_unit)
            flows = max(flows, max(error - typical, 0.0) / max(abs(q * flow_unit), typical))
    return heads, flows


@pytest.mark.parametrize(
    ("name", "every", "hours"),
    [
        ("Net1", 3, None),
        ("Net2", 6, None),
        ("Net3", 6, 60),
        ("ky4", 1, None),
        pytest.param("Net1", 1, None, marks=pytest.mark.slow),
        pytest.param("Net2", 1, None, marks=pytest.mark.slow),
        pytest.param("Net3", 1, None, marks=pytest.mark.slow),
    ],
)
def test_public_networks(name, every, hours, tmp_path):
    heads, flows = largest_differences(epanet_engine.networks() / f"{name}.inp", tmp_path, every, hours)
    assert heads < 1e-3
    assert flows < 1e-3


EVERYTHING = """\
[TITLE]
All that a file may hold
[JUNCTIONS]
A 10 0
B 12 5
C 8 10 day
D 5 8
E 15 4
F 0 3
G 5
H 4 1
I 3 6
J 2 1
[RESERVOIRS]
Lake 20 tide
Sea 1
[TANKS]
T 60 4 0 10 20 0
[PIPES]
1 A B 500 300 ROUGH 2.5 Open
2 B C 700 250 ROUGH 0
3 B D 900 200 ROUGH
4 C D 400 150 ROUGH 1 CV
5 D C 400 150 ROUGH 0 CV  ; one of the two is closed
6 C T 600 250 ROUGH 0
7 G E 300 150 ROUGH
8 H F 300 150 ROUGH
9 E F 1000 150 ROUGH 0
11 J Sea 800 300 ROUGH
12 B D 900 200 ROUGH 0 Closed
10 I F 500 100 ROUGH 0.5
[PUMPS]
P Lake A HEAD one SPEED 1.1
P2 Lake A HEAD three PATTERN wheel
P3 Lake A POWER 4
P4 Lake A HEAD many
[VALVES]
PRV B G 150 PRV 30 0.2
FCV C H 150 FCV 6 0
TCV B C 150 TCV 12 0
PBV A B 150 PBV 2.5
PSV D J 150 PSV 60
[DEMANDS]
D 4 day industry
D 4
[STATUS]
P3 Open
PBV Closed
[PATTERNS]
day 1.0 1.2 0.7
tide 1.0 1.01
wheel 1 0.95 0
1 1.0 1.1
[CURVES]
one 60 60
three 0 80
three 40 70
three 80 45
many 5 75
many 20 70
many 40 55
many 60 30
[TIMES]
Duration 4:00
Pattern Timestep 2 HOURS
Pattern Start 1:00
Start ClockTime 6 am
[OPTIONS]
Units LPS
Headloss FORMULA
Demand Multiplier 1.5
Specific Gravity 1.0
[COORDINATES]
A 0 0
[END]
"""
ROUGHNESS = {"H-W": "110", "D-W": "0.3", "C-M": "0.012"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.inp"
    path.write_text(EVERYTHING.replace("ROUGH", "110").replace("FORMULA", "H-W"))
    return path


@pytest.mark.parametrize("formula", ROUGHNESS)
def test_all_that_a_file_may_hold(formula, tmp_path):
    file = tmp_path / "net.inp"
    file.write_text(EVERYTHING.replace("ROUGH", ROUGHNESS[formula]).replace("FORMULA", formula))
    heads, flows = largest_differences(file, tmp_path, units="LPS")
    assert heads < 1e-3
    assert flows < 1e-3


@pytest.mark.parametrize("units", FLOW_UNITS)
def test_units_of_flow(units, tmp_path):
    if units == "CMS":
        pytest.skip("EPANET 2.2 does not have m3/s")
    us = units in US_UNITS
    size = 0.02 / FLOW_UNITS[units]
    metre, mm = (1 / FOOT, 1 / 25.4) if us else (1.0, 1.0)
    file = tmp_path / "net.inp"
    file.write_text(
        f"[JUNCTIONS]\nA {5 * metre} {size}\nB {metre} {size}\n[RESERVOIRS]\nR {50 * metre}\n[VALVES]\nV A B {200 * mm} PRV 20\n"
        f"[PIPES]\n1 R A {1000 * metre} {250 * mm} 100\n[OPTIONS]\nUnits {units}\n"
    )
    heads, flows = largest_differences(file, tmp_path, units=units)
    assert heads < 2e-3 if us else 1e-3  # the setting in psi, whose conversion EPANET has in four digits
    assert flows < 1e-4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[END]", "[EMITTERS]\nA 0.5\n", r"line \d+: \[EMITTERS\] is not supported"),
        ("[END]", "[LEAKAGE]\n1 0.5\n", r"\[LEAKAGE\] is not supported"),
        ("[END]", "[WIND]\n", r"section \[WIND\] is not known"),
        ("Specific Gravity 1.0", "Demand Model PDA", r"PDA\) are not supported"),
        ("TCV B C 150 TCV 12 0", "TCV B C 150 GPV one", "valves of type GPV are not supported"),
        ("1 A B 500 300", "1 A B 500 zero", "expected a number for diameter, got 'zero'"),
        ("1 A B 500 300", "1 A B 500 -300", "must be positive"),
        ("1 A B 500 300", "1 A Z 500 300", "ends at node 'Z', which the network does not have"),
        ("2 B C 700", "1 B C 700", "two links '1'"),
        ("Units LPS", "Units BPS", "expected flow units, one of CFS"),
        ("Headloss H-W", "Headloss X-Y", "expected the head-loss formula"),
        ("HEAD one", "HEAD none", "there is no curve 'none'"),
        ("HEAD one", "TORQUE 3", "no property of a pump"),
        ("three 80 45", "three 80 75", "curve 'three': flows of a pump curve must increase and lifts decrease"),
        ("C 8 10 day", "C 8 10 night", "no pattern 'night'"),
        ("D 4 day industry", "Q 4 day industry", "there is no junction 'Q'"),
        ("P3 Open", "1 HALF", "a pipe can be OPEN or CLOSED, not 'HALF'"),
        ("Pattern Timestep 2 HOURS", "Pattern Timestep 2 MOONS", "expected a time"),
        ("[TITLE]\nAll", "All", r"line 1: expected a section"),
    ],
)
def test_what_is_refused(file, old, new, message):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_epanet(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_epanet(tmp_path / "none.inp")


def test_demands_that_are_cut_off_are_named(file):
    network = read_epanet(file)
    with pytest.raises(InputError, match="node 'E' has a demand, but closed links cut it off"):
        PipeFlow(network, {"FCV": LinkStatus.CLOSED, "PRV": LinkStatus.CLOSED})
    with pytest.raises(InputError, match="no link 'X'"):
        PipeFlow(network, {"X": LinkStatus.CLOSED})
    with pytest.raises(InputError, match="link '1' is no valve"):
        PipeFlow(network, {"1": LinkStatus.ACTIVE})


def test_a_valve_that_cannot_hold_its_setting_is_named(file):
    file.write_text(file.read_text().replace("PRV B G 150 PRV 30", "PRV B G 150 PRV 300"))
    flow = PipeFlow(read_epanet(file))
    with pytest.raises(BilevelError, match="PRV 'PRV' cannot hold its setting"):
        flow.solve(flow.parameters())


def test_controls_are_kept_with_their_line(file):
    file.write_text(file.read_text().replace("[END]", "[CONTROLS]\nLINK 3 CLOSED IF NODE T ABOVE 5\n"))
    (control,) = read_epanet(file).controls.items()
    assert control[0] == "3"
    assert "LINK 3 CLOSED IF NODE T ABOVE 5" in control[1]
