"""The study model `network`: units, groups, statuses and levels in time, tables, bad input, and a twin fit of Net3."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bilevel.calibrate import calibrate, load_study
from bilevel.report import InputError
from physics.flow.water.epanet import read_epanet
from physics.flow.water.network import LinkStatus
from physics.flow.water.pipe_flow import PipeFlow

NET3 = Path(__file__).parents[3] / "examples" / "net3"
INP = """\
[JUNCTIONS]
A 10 0
B 5 20
C 8 15
[RESERVOIRS]
Lake 12
[TANKS]
T 50 4 0 8 20
[PIPES]
1 A B 800 250 110
2 B C 600 200 100
3 A C 900 200 120
4 C T 500 200 130
[PUMPS]
P Lake A HEAD one
[CURVES]
one 50 60
[PATTERNS]
1 1.0 0.6
[CONTROLS]
LINK P CLOSED IF NODE T ABOVE 6
[OPTIONS]
Units LPS
"""
STUDY = """\
title: Three pipes
model:
  kind: network
  file: net.inp
  groups: {old: ["1", "2"], new: ["3"]}
  status: {P: [{start: 0 h, status: open}, {start: 1 h, status: closed}]}
  levels: {T: [{time: 0 h, level: 4 m}, {time: 2 h, level: 6 m}]}
parameters:
  - {name: roughness_old, value: 100, lower: 30, upper: 300}
  - {name: roughness_new, value: 120, lower: 30, upper: 300}
observations:
  - file: pressures.csv
    value: {column: value, units: kPa}
    columns: {time: {column: hour, units: h}, element: node, quantity: quantity}
  - file: heads.csv
    value: {column: value, units: m}
    columns: {time: {column: hour, units: h}, element: node, quantity: quantity}
    group: heads
  - file: flows.csv
    value: {column: value, units: L/s}
    columns: {time: {column: hour, units: h}, element: link, quantity: quantity}
    group: flows
"""
FILES = {
    "net.inp": INP,
    "study.yml": STUDY,
    "pressures.csv": "hour,node,quantity,value\n0,B,pressure,500\n1,C,pressure,450\n",
    "heads.csv": "hour,node,quantity,value\n0,C,head,60\n",
    "flows.csv": "hour,link,quantity,value\n0,1,flow,20\n1,3,flow,-4\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def expected(folder, rough):
    network = read_epanet(folder / "net.inp")
    found = []
    for hour, status, level in ((0, LinkStatus.OPEN, 4.0), (1, LinkStatus.CLOSED, 5.0)):
        flow = PipeFlow(network, {"P": status})
        params = flow.parameters(3600.0 * hour, {"T": level})
        params["roughness"] = torch.tensor([rough[0], rough[0], rough[1], 130.0])
        u = flow.solve(params).u
        found.append((flow.heads(u, params), flow.flows(u)))
    (head, flux), (later, drain) = found
    return [9806.65 * (head[1] - 5.0), 9806.65 * (later[2] - 8.0), head[2], flux[0], drain[2]]


def test_predictions_at_their_times_in_si_units(folder):
    problem = load_study(folder / "study.yml").problem
    predicted = problem.predict(torch.from_numpy(problem.parameters.start()))
    torch.testing.assert_close(predicted, torch.stack(expected(folder, (100.0, 120.0))), rtol=1e-8, atol=1e-9)


def test_names_may_be_numbers(folder):
    before = load_study(folder / "study.yml").problem
    (folder / "study.yml").write_text(STUDY.replace('old: ["1", "2"], new: ["3"]', "old: [1, 2], new: [3]"))
    problem = load_study(folder / "study.yml").problem
    start = torch.from_numpy(before.parameters.start())
    torch.testing.assert_close(problem.predict(start), before.predict(start))


def test_jacobian_against_differences(folder):
    problem = load_study(folder / "study.yml").problem
    start = problem.parameters.start()
    jacobian = problem.evaluate(start, True).jacobian
    step = 1e-3
    for k, direction in enumerate(np.eye(len(start))):
        near = [problem.predict(torch.from_numpy(start + m * step * direction)).numpy() for m in (-2, -1, 1, 2)]
        difference = (8.0 * (near[2] - near[1]) - (near[3] - near[0])) / (12.0 * step)
        difference = difference / [1e3, 1e3, 1.0, 1e-3, 1e-3]  # the Jacobian is in the units of the files
        np.testing.assert_allclose(np.asarray(jacobian)[:, k], difference, rtol=1e-6, atol=1e-6)


def test_tables_say_the_same_as_a_file(folder):
    (folder / "nodes.csv").write_text("name,elevation,demand,head\nA,10,,\nB,5,20,\nC,8,15,\nT,50,,54\n")
    (folder / "pipes.csv").write_text(
        "name,start,end,length,diameter,roughness\n1,A,B,800,250,110\n2,B,C,600,200,100\n3,A,C,900,200,120\n4,C,T,500,200,130\n"
    )
    study = STUDY.replace(
        "file: net.inp", "tables: {nodes: nodes.csv, pipes: pipes.csv, formula: H-W, demand_units: L/s}"
    )
    study = study[: study.index("  status")] + study[study.index("parameters:") :].replace(
        "link, quantity", "link, quantity"
    )
    for name in ("pressures", "heads", "flows"):
        rows = [line for line in FILES[f"{name}.csv"].splitlines() if not line.startswith("1")]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    (folder / "study.yml").write_text(study)
    problem = load_study(folder / "study.yml").problem
    predicted = problem.predict(torch.from_numpy(problem.parameters.start()))
    flow = PipeFlow(read_epanet(folder / "net.inp"), {"P": LinkStatus.CLOSED})
    params = flow.parameters(0.0, {"T": 4.0})
    params["roughness"] = torch.tensor([100.0, 100.0, 120.0, 130.0])
    u = flow.solve(params).u
    heads = flow.heads(u, params)
    exact = torch.stack([9806.65 * (heads[1] - 5.0), heads[2], flow.flows(u)[0]])
    torch.testing.assert_close(predicted, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("study.yml", "file: net.inp", "file: none.inp", "none.inp: cannot be read"),
        ("study.yml", "file: net.inp", "groups_by: x", "groups_by"),
        ("study.yml", "  file: net.inp\n", "", "either an EPANET file or tables"),
        ("study.yml", '["3"]', '["9"]', "'9' in group 'new' is no pipe"),
        ("study.yml", '["3"]', '["2"]', "pipe '2' is in 'old' and in 'new'"),
        ("study.yml", "{P: [", "{Q: [", "link 'P' is controlled .*LINK P CLOSED IF NODE T ABOVE 6"),
        ("study.yml", "{start: 0 h, status: open}", "{start: 0.5 h, status: open}", "status of 'P': nothing is said of the time 0 s"),
        ("study.yml", "status: closed", "status: ajar", "open"),
        ("study.yml", "levels: {T", "levels: {B", "'B' is no tank"),
        ("study.yml", "level: 4 m", "level: 4", "no units"),
        ("study.yml", "{time: 2 h, level: 6 m}", "{time: 30 min, level: 6 m}", "levels of 'T': nothing is said of the time 3600 s"),
        ("study.yml", "units: L/s", "units: m", "a flow cannot be in m"),
        ("study.yml", "units: kPa", "units: L", "a pressure cannot be in L"),
        ("study.yml", "roughness_new", "roughness_newer", "roughness_new"),
        ("heads.csv", "0,C,head", "0,Z,head", r"heads.csv, line 2: the network has no node 'Z'"),
        ("flows.csv", "0,1,flow", "0,X,flow", "the network has no link 'X'"),
        ("heads.csv", "0,C,head", "0,C,colour", "quantity 'colour' is none of head, pressure, flow"),
    ],
)  # fmt: skip
def test_bad_input(folder, file, old, new, message):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_study(folder / "study.yml")


def test_the_map_shows_groups_and_readings():
    study = load_study(NET3 / "study.yml")
    model = study.problem.experiments[0].model
    (picture,) = model.figures({})
    (axes,) = picture.figure.axes
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == list(model.groups)
    assert len(axes.lines[-1].get_xdata()) == 15


@pytest.mark.slow
def test_roughness_of_eight_groups_of_net3():
    """Every coefficient that the pressures were made from lies within its interval of 95 %."""
    study = load_study(NET3 / "study.yml")
    result = calibrate(study.problem, settings=replace(study.settings, verify=True))
    sys.path.insert(0, str(NET3))
    try:
        from prepare import TRUTH
    finally:
        sys.path.remove(str(NET3))
    assert result.converged
    assert result.jacobian_error < 1e-4  # of the differences: pipes whose flow turns are kinks of size zero
    for estimate in result.estimates:
        assert estimate.lower95 < TRUTH[estimate.label.removeprefix("roughness_")] < estimate.upper95


def test_a_network_takes_no_learned_guess_and_the_error_names_what_it_has(folder):
    (folder / "study.yml").write_text(STUDY.replace("  kind: network\n", "  kind: network\n  solver: learned\n"))
    with pytest.raises(InputError, match=r"study\.yml, line 2: .*guesses are learned for bodies.*LogMiddle"):
        load_study(folder / "study.yml")
