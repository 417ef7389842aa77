"""Training from family.yml to weights: reproducible, resumable, and plain about wrong files."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from typer.testing import CliRunner

import bilevel.acceleration.bench.bench_steps as bench_steps
import bilevel.acceleration.training.supervised as supervised
from bilevel.acceleration.bench.methods import classical_methods
from bilevel.acceleration.learned_guess import guess_solver
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.acceleration.training.config import find_family, read_config
from bilevel.acceleration.training.supervised import Supervision, reference_solution, sample, train_supervised
from bilevel.acceleration.training.train_steps import train_steps
from bilevel.acceleration.weights_file import Weights, shipped
from bilevel.cli import app
from bilevel.report import InputError
from bilevel.solvers import Newton
from bilevel.solvers.evaluations import Tolerance
from physics.families.forchheimer import ForchheimerFlow
from physics.families.large_strain import LargeStrain
from physics.families.power_law import PowerLawFlow

FAMILY = "physics.families.power_law:PowerLawFlow"
PLAN = {"systems": 2, "size": 60, "instances": 3, "epochs": 2, "rate": 1e-3}


def network():
    torch.manual_seed(0)
    return CellNetwork(8, 3, hidden=6, hops=1)


def written(folder, **changes):
    content = {"family": FAMILY, "out": "weights.pt", "hidden": 6, "hops": 1, **PLAN} | changes
    file = folder / "family.yml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return file


class Stopped(Exception):
    pass


def test_an_interrupted_supervised_training_ends_at_the_same_weights(tmp_path, monkeypatch):
    plan = Supervision(systems=2, size=60, instances=3, epochs=2, rate=1e-3, hidden=6, hops=1, seed=1)
    whole = train_supervised(PowerLawFlow(), plan)
    file, fit, solve = tmp_path / "checkpoint", supervised.fit, supervised.reference_solution
    begun = []

    def only_first(*args):
        begun.append(args)
        if len(begun) == 2:
            raise Stopped
        return fit(*args)

    monkeypatch.setattr(supervised, "fit", only_first)
    with pytest.raises(Stopped):
        train_supervised(PowerLawFlow(), plan, checkpoint=file)
    solved_again = []
    monkeypatch.setattr(supervised, "reference_solution", lambda one: solved_again.append(one) or solve(one))
    resumed = train_supervised(PowerLawFlow(), plan, checkpoint=file)
    assert len(begun) == 3
    assert not solved_again
    for one, other in zip(whole, resumed, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(other.state_dict()[name], value)
    with pytest.raises(InputError, match="another schedule"):
        train_supervised(PowerLawFlow(), replace(plan, seed=2), checkpoint=file)


def test_a_network_learns_what_the_solutions_ask_for():
    samples = []
    for k in range(2):
        instance = LargeStrain().instance(30, k)
        solution = reference_solution(instance)
        samples.append(sample(instance.cellwise, instance.cellwise.begin(instance.start), solution))
    one = samples[0]
    net = CellNetwork(one.features.shape[1], one.targets.shape[1], one.incidence.features.shape[1], hidden=8, hops=1)
    errors = list(supervised.fit(net, samples, epochs=60, rate=1e-2, seed=0))
    assert errors[-1] < 0.5 * errors[0]


def test_a_checkpoint_of_another_training_or_of_nothing_is_refused(tmp_path):
    file, plan = tmp_path / "checkpoint", Supervision(**PLAN | {"epochs": 1}, hidden=6, hops=1)
    train_supervised(PowerLawFlow(), plan, checkpoint=file)
    with pytest.raises(InputError, match=r"another schedule \(.*family"):
        train_supervised(ForchheimerFlow(), plan, checkpoint=file)
    file.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="not a checkpoint"):
        train_supervised(PowerLawFlow(), plan, checkpoint=file)


def test_from_yaml_to_a_solver_that_finds_what_newton_finds(tmp_path):
    file = train_steps(written(tmp_path), progress=False)
    assert file.stat().st_size < 2e6
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["family"] == "power_law"
    assert card["made_by"]["settings"]["seed"] == 0
    assert not file.with_suffix(".checkpoint").exists()
    written_then = file.read_bytes()
    with pytest.raises(InputError, match="exists"):
        train_steps(written(tmp_path), progress=False)
    assert file.read_bytes() == written_then
    weights = Weights.load(file, PowerLawFlow())
    instance = PowerLawFlow(exponent=3.0).instance(150, 77)
    tolerance = Tolerance(1e-10)
    solver = guess_solver(weights.networks, tolerance=tolerance)  # the problem knows its own form
    found = solver.solve(instance.problem, instance.start, instance.params)
    expected = Newton(tolerance=tolerance).solve(instance.problem, instance.start, instance.params)
    assert found.report.converged
    assert found.report.counts.inferences > 0
    assert torch.allclose(found.u, expected.u, atol=1e-7)


def saved(folder):
    torch.manual_seed(0)
    weights = Weights("power_law", PowerLawFlow.version, (network(),), {"seed": 0})
    weights.save(folder / "weights.pt")
    return folder / "weights.pt"


def test_weights_survive_the_disk(tmp_path):
    loaded = Weights.load(saved(tmp_path), PowerLawFlow())
    assert loaded.made_by == {"seed": 0}
    for name, value in network().state_dict().items():
        assert torch.equal(loaded.networks[0].state_dict()[name], value)


def test_weights_of_another_family_other_features_or_damaged_are_refused(tmp_path):
    file = saved(tmp_path)
    with pytest.raises(InputError, match="trained on the family 'power_law', not on 'large_strain'"):
        Weights.load(file, LargeStrain())
    with pytest.raises(InputError, match="there is no file of weights"):
        Weights.load(tmp_path / "absent.pt", PowerLawFlow())
    content = torch.load(file, weights_only=True)
    torch.save(content | {"feature_version": content["feature_version"] + 1}, file)
    with pytest.raises(InputError, match=r"version 2\.2 of the features.*makes version 2\.1"):
        Weights.load(file, PowerLawFlow())
    torch.save({"something": torch.zeros(3)}, file)
    with pytest.raises(InputError, match="not a file of weights written by"):
        Weights.load(file, PowerLawFlow())
    bad = dict(content)
    bad["networks"] = [content["networks"][0] | {"settings": content["networks"][0]["settings"] | {"hidden": 7}}]
    torch.save(bad, file)
    with pytest.raises(InputError, match="other names or sizes"):
        Weights.load(file, PowerLawFlow())
    whole = saved(tmp_path).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        Weights.load(file, PowerLawFlow())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"family": "physics.families.power_law:Absent"}, "line 2.*cannot be imported"),
        ({"family": "nothing_like_it"}, "no family of the name"),
        ({"family": "physics.flow:FlowNetwork"}, "no subclass of"),
        ({"hiden": 3}, "unknown key 'hiden'; did you mean 'hidden'?"),
        ({"epochs": None}, "epochs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_family_file_is_one_line_and_exit_code_two(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        read_config(written(tmp_path, **changes))
    ended = CliRunner().invoke(app, ["train-steps", str(written(tmp_path, **changes))])
    assert ended.exit_code == 2
    assert ended.stderr.count("\n") == 1


def test_unknown_families_and_missing_weights_end_the_benchmark_with_code_two(tmp_path):
    ended = CliRunner().invoke(app, ["bench-steps", "nothing_like_it"])
    assert ended.exit_code == 2
    ended = CliRunner().invoke(app, ["bench-steps", FAMILY, "--guess", str(tmp_path / "absent.pt")])
    assert ended.exit_code == 2
    assert "no file of weights" in ended.stderr
    ended = CliRunner().invoke(app, ["bench-steps", FAMILY, "--against", "load steps"])
    assert ended.exit_code == 2
    assert "no classical method 'load steps'" in ended.stderr
    assert "load stepping" in ended.stderr


def test_the_benchmark_may_be_held_against_some_classical_methods_only(monkeypatch):
    held = []
    monkeypatch.setattr(bench_steps, "run", lambda *arguments: held.append([m.name for m in arguments[3]]))
    monkeypatch.setattr(bench_steps, "text", lambda report: "")
    bench_steps.bench_steps(FAMILY, bench_steps.QUICK, against=["load stepping", "Newton, line search"])
    bench_steps.bench_steps(FAMILY, bench_steps.QUICK)
    assert held == [["Newton, line search", "load stepping"], [method.name for method in classical_methods()]]


def test_a_family_is_found_by_module_and_class():
    assert isinstance(find_family(FAMILY), PowerLawFlow)


def test_damaged_weights_are_refused_by_their_checksum(tmp_path):
    family, file = LargeStrain(), tmp_path / "weights.pt"
    good = shipped(family).read_bytes()
    file.write_bytes(good)
    Weights.load(file, family)
    middle = len(good) // 2
    file.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    with pytest.raises(InputError, match="checksum"):
        Weights.load(file, family)
