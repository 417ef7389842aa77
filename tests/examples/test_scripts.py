"""The scripts of `examples/`, at sizes that take seconds."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str, **settings: object) -> ModuleType:
    """An example's script as a module of its own, with some of its source's lines `NAME = value` changed."""
    file = EXAMPLES / name / f"{name}.py"
    source = file.read_text(encoding="utf-8")
    for setting, value in settings.items():
        assert f"\n{setting} = " in source
        begin, _, rest = source.partition(f"\n{setting} = ")
        source = f"{begin}\n{setting} = {value}\n{rest.partition(chr(10))[2]}"
    spec = importlib.util.spec_from_loader(f"example_{name}", loader=None, origin=str(file))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    exec(compile(source, str(file), "exec"), module.__dict__)
    return module


def test_footing_carries_a_little_more_than_prandtl_says() -> None:
    footing = load("footing")
    exact = footing.prandtl(0.0)
    assert exact == pytest.approx(2 + torch.pi)
    curve = footing.press(0.0, 0.06, 20, cells=6)
    assert 1.0 < float(curve.pressure[-1]) / exact < 1.15
    assert footing.prandtl(10.0) == pytest.approx(8.345, abs=1e-3)


def test_rubber_bar_by_both_solvers() -> None:
    bar = load("rubber_bar", **{"LENGTH, ACROSS": "3.0, 8"})
    stepped, learned = bar.solve(bar.load_stepping()), bar.solve(bar.learned_guess())
    assert learned.force == pytest.approx(stepped.force, rel=1e-8)
    assert torch.allclose(learned.positions, stepped.positions, atol=1e-7)
    assert torch.allclose(
        learned.sensitivity, stepped.sensitivity, rtol=1e-5, atol=1e-8 * stepped.sensitivity.abs().max()
    )
    assert learned.factorisations < stepped.factorisations


@pytest.mark.slow
def test_conductivity_is_seen_in_heads() -> None:
    """Linearised once from a uniform aquifer; the derivative comes from the implicit layer."""
    image = load("conductivity_image", CELLS=6)
    truth = torch.zeros(6, 6)
    truth[1:3, 1:4] = 1.0
    data = image.heads(truth)
    found = image.nonlinear(data, image.Tikhonov(), image.Discrepancy(sigma=2e-3, lowest=1e-7, highest=1e1))
    assert float((found - truth).norm() / truth.norm()) < 0.5
    assert float((image.heads(found) - data).square().mean().sqrt()) < 3 * image.SIGMA


@pytest.fixture
def single_precision() -> Iterator[None]:
    """PyTorch's own default, in which the script runs."""
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.mark.usefixtures("single_precision")
def test_sparse_recovery_learns_and_loads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recovery = load("sparse_recovery")
    monkeypatch.setattr("sys.argv", ["sparse_recovery.py", "--folder", str(tmp_path)])
    short = recovery.LayerwiseSchedule(batch=16, alone=1, together=1, final=2, rate=2e-2, seed=0)
    monkeypatch.setattr(recovery, "LayerwiseSchedule", lambda **_: short)
    recovery.main()
    printed = capsys.readouterr().out
    errors = {
        line.split(":")[0]: float(line.split(":")[1].split()[0]) for line in printed.splitlines() if " dB" in line
    }
    assert errors["FISTA  after  16 iterations"] == pytest.approx(-9.8, abs=0.1)
    assert errors["ISTA   after 200 iterations"] == pytest.approx(-16.4, abs=0.1)
    assert errors["ALISTA, 16 layers"] < -10.0
    assert "weights written by" in printed
