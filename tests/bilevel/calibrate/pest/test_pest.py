"""PEST's files: what is written is read back, what is damaged is refused, and pyEMU makes the same numbers of it."""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bilevel.calibrate import Noise, Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.pest.control_file import PestCase, PestObservation, PestParameter, read_pst, write_pst
from bilevel.calibrate.pest.export import write_pest_case
from bilevel.calibrate.pest.matrices import read_jcb, write_jcb
from bilevel.calibrate.statistics.forecast_worth import forecasts_of
from bilevel.report import InputError

X = torch.linspace(0.1, 3.0, 12)
SETTINGS = Settings(noise=Noise.KNOWN, verify=False)
FREE = (
    Parameter("Level", 5.0, 0.1, 50.0),
    Parameter("rate", 0.5, 0.01, 10.0, transform="log"),
    Parameter("offset", 0.1, prior_mean=0.0, prior_std=0.2),
    Parameter("fixed", 2.0, fixed=True),
    Parameter("half_life", expr="log(2) / rate"),
)


def decay(p):
    return p["Level"] * torch.exp(-p["rate"] * X) + p["offset"] + p["fixed"]


def fitted():
    weight = torch.full((12,), 1 / 0.05).index_fill(0, torch.tensor([11]), 0.0)
    data = 7 * torch.exp(-0.8 * X) + 2 + 0.03 * torch.sin(40.0 * X)
    return calibrate(problem_from_function(FREE, decay, data, weight), settings=SETTINGS)


def test_what_is_written_is_read_back(tmp_path):
    write_pest_case(fitted(), tmp_path / "case.pst", command="bilevel run study.yml")
    case = read_pst(tmp_path / "case.pst")
    assert [(p.parnme, p.partrans) for p in case.parameters] == [
        ("level", "none"), ("rate", "log"), ("offset", "none"), ("fixed", "fixed"),
    ]  # fmt: skip
    assert (case.parameters[1].parlbnd, case.parameters[1].parubnd) == (0.01, 10.0)
    assert [o.obsnme for o in case.observations][::11] == ["data[1]", "data[12]"]
    assert [o.weight for o in case.observations] == pytest.approx([20.0] * 11 + [0.0])
    assert [(p.equation, p.weight) for p in case.prior_information] == [("1.0 * offset = 0", 5.0)]
    assert case.command == ["bilevel run study.yml"]
    write_pst(case, tmp_path / "again.pst")
    assert read_pst(tmp_path / "again.pst") == case


def test_the_jacobian_is_that_of_natural_values_and_decimal_logarithms(tmp_path):
    result = fitted()
    write_pest_case(result, tmp_path / "case.pst")
    matrix, rows, columns = read_jcb(tmp_path / "case.jcb")
    assert (columns, len(rows)) == (["level", "rate", "offset"], 12)
    at = {label: torch.tensor(float(value)) for label, value in result.values.items()}
    for k, (label, step) in enumerate([("Level", 1e-6), ("rate", None), ("offset", 1e-6)]):
        change = [dict(at), dict(at)]
        h = step or 1e-6
        for sign, p in zip((-1, 1), change):
            p[label] = at[label] + sign * h if step else at[label] * 10 ** (sign * h)
        np.testing.assert_allclose(
            matrix[:, k], (decay(change[1]) - decay(change[0])).numpy() / (2 * h), rtol=1e-7, atol=1e-9
        )


def test_jacobians_survive_a_round_trip_and_the_older_format_is_read(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(5, 3)) * (np.arange(3) != 1)
    rows, columns = [f"o{i}" for i in range(5)], ["a", "b", "c"]
    write_jcb(tmp_path / "new.jcb", matrix, rows, columns)
    found = read_jcb(tmp_path / "new.jcb")
    np.testing.assert_array_equal(found[0], matrix)
    assert found[1:] == (rows, columns)
    entries = np.zeros(15, dtype=[("place", "<i4"), ("value", "<f8")])
    entries["place"], entries["value"] = np.arange(1, 16), matrix.T.reshape(-1)
    names = b"".join(n.encode().ljust(12) for n in columns) + b"".join(n.encode().ljust(20) for n in rows)
    old = np.array([-3, -5, 15], dtype="<i4").tobytes() + entries.tobytes() + names
    (tmp_path / "old.jcb").write_bytes(old)
    found = read_jcb(tmp_path / "old.jcb")
    np.testing.assert_array_equal(found[0], matrix)
    assert found[1:] == (rows, columns)
    (tmp_path / "cut.jcb").write_bytes(old[:-7])
    with pytest.raises(InputError, match="cut off"):
        read_jcb(tmp_path / "cut.jcb")
    (tmp_path / "none.jcb").write_bytes(b"abc")
    with pytest.raises(InputError, match="is no binary Jacobian"):
        read_jcb(tmp_path / "none.jcb")


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("case.pst", "pcf version=2", "pcf", "line 1: expected 'pcf version=2'"),
        ("case.par_data.csv", "log", "logit", "line 3: partrans is none, log, fixed or tied"),
        ("case.par_data.csv", "parval1", "value", "has no column 'parval1'"),
        ("case.obs_data.csv", "20.0", "-1", "line 2: expected a weight that is not negative"),
        ("case.obs_data.csv", "data[2]", "data[1]", "'data[1]' is given more than once"),
        ("case.par_data.csv", ",rate,", ",rates,", "which is not among the groups"),
        ("case.pst", "case.obs_data.csv", "case.obs.csv", "there is no such file"),
    ],
)
def test_what_is_wrong_with_a_control_file_is_told_with_its_place(tmp_path, file, old, new, what):
    write_pest_case(fitted(), tmp_path / "case.pst")
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        read_pst(tmp_path / "case.pst")
    assert what in str(error.value)


def test_names_that_differ_in_case_only_are_refused(tmp_path):
    pair = [Parameter("k", 1.0), Parameter("K", 2.0)]
    result = calibrate(
        problem_from_function(pair, lambda p: p["k"] + p["K"] * X, X + 0.01 * torch.sin(9 * X)),
        settings=Settings(verify=False),
    )
    with pytest.raises(InputError, match="name of two things"):
        write_pest_case(result, tmp_path / "case.pst")


@pytest.mark.filterwarnings("ignore")  # pyEMU leaves files open, and pandas warns it of its own future
def test_pyemu_reads_it_and_its_schur_complement_is_ours(tmp_path):
    """With bounds or priors of all parameters; its forecast is our row of weight 0."""
    pyemu = pytest.importorskip("pyemu")
    bounded = [
        replace(p, prior_mean=None, prior_std=None, lower=-1.0, upper=1.0) if p.name == "offset" else p for p in FREE
    ]
    weight = torch.full((12,), 1 / 0.05).index_fill(0, torch.tensor([11]), 0.0)
    data = 7 * torch.exp(-0.8 * X) + 2 + 0.03 * torch.sin(40.0 * X)
    problem = problem_from_function(bounded, decay, data, weight)
    result = calibrate(problem, settings=SETTINGS)
    write_pest_case(result, tmp_path / "case.pst")
    pst = pyemu.Pst(str(tmp_path / "case.pst"))
    assert list(pst.adj_par_names) == ["level", "rate", "offset"]
    schur = pyemu.Schur(
        jco=str(tmp_path / "case.jcb"), pst=pst, parcov=str(tmp_path / "case.prior.cov"), forecasts=["data[12]"]
    )
    ours = ours_of(problem, result)
    assert schur.prior_forecast["data[12]"] == pytest.approx(ours.prior_std**2, rel=1e-6)
    assert schur.posterior_forecast["data[12]"] == pytest.approx(ours.std**2, rel=1e-6)
    del pst, schur
    gc.collect()


def ours_of(problem, result):
    """The forecast of the row of weight 0, asked for as a scenario of one row."""
    from bilevel.calibrate import Experiment, ObservationTable
    from bilevel.calibrate.function_problem import FunctionModel

    table = ObservationTable(torch.zeros(1), torch.zeros(1), ("last",))
    scenario = Experiment("last", FunctionModel(table, lambda p: decay(p)[11:]), table, parameters_of="data")
    return forecasts_of(problem, result.evaluation, Noise.KNOWN, [scenario])[0]


def test_a_study_is_exported(study, no_pictures):
    assert study.call("run").code == 0
    exported = study.call("pest")
    assert exported.code == 0
    case = read_pst(study.results / "pest" / "case.pst")
    matrix, rows, columns = read_jcb(study.results / "pest" / "case.jcb")
    assert columns == ["amplitude", "rate"]
    assert rows == [o.obsnme for o in case.observations]
    assert [o.obsval for o in case.observations] == pytest.approx([203, 158, 117, 98, 71, 59, 43, 29])
    assert [o.weight for o in case.observations] == pytest.approx([0.5] * 8)
    value = {p.parnme: p.parval1 for p in case.parameters}
    height = 100 * value["amplitude"]  # of the first row, at time 0, in cm
    assert matrix[0, 0] == pytest.approx(height * math.log(10), rel=1e-9)


def test_a_case_may_be_made_by_hand(tmp_path):
    case = PestCase(
        parameters=[PestParameter("k", "log", "factor", 1.0, 0.1, 10.0, "k")],
        observations=[PestObservation("h1", 2.0, 1.0, "heads")],
    )
    write_pst(case, tmp_path / "hand.pst")
    assert read_pst(tmp_path / "hand.pst").observations == [PestObservation("h1", 2.0, 1.0, "heads")]
