"""Settings with which nothing sensible can happen are refused where they are made, in a sentence that says what is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bilevel import (
    FIRE,
    LBFGS,
    Anderson,
    Armijo,
    BarzilaiBorwein,
    Exact,
    InputError,
    LoadStepping,
    Newton,
    Picard,
    TrustRegion,
    Unrolled,
    Wolfe,
    argmin,
)
from bilevel.calibrate import Ensemble, EnsembleMethod, GroupNoise, Loss, Settings, Starts, Strength
from bilevel.calibrate.settings import Method, Noise
from bilevel.composite import ADMM, FISTA, PrimalDual
from bilevel.composite.proximal_gradient import Restart

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a word for a step": (lambda: Newton(step="armijo"), "step must be a rule such as"),
    "a class for a step": (lambda: Newton(step=Armijo), "step must be a rule such as"),
    "a word for a linear solver": (lambda: Newton(linear="lu"), "linear must be a linear solver"),
    "a number for a tolerance": (lambda: Newton(tolerance=1e-8), "tolerance must be a bilevel.Tolerance"),
    "a word for a number": (lambda: Newton(max_iterations="many"), "max_iterations must be a whole number"),
    "fewer than no iterations": (lambda: Picard(max_iterations=-1), "max_iterations must be a whole number"),
    "more decrease than the slope": (lambda: Armijo(decrease=2.0), "decrease is a share"),
    "steps that grow when they fail": (lambda: BarzilaiBorwein(shrink=2.0), "shrink lies between"),
    "a memory of nothing": (lambda: BarzilaiBorwein(memory=0), "memory must hold"),
    "Wolfe's conditions crossed": (lambda: Wolfe(decrease=0.9, curvature=0.1), "decrease < curvature"),
    "a radius of nothing": (lambda: TrustRegion(radius=0.0), "radius must be positive"),
    "no pairs": (lambda: LBFGS(memory=0), "at least one pair"),
    "a step that goes back": (lambda: Picard(relaxation=-1.0), "relaxation must be positive"),
    "no differences": (lambda: Anderson(memory=0), "memory >= 1"),
    "moves of nothing": (lambda: FIRE(largest_move=0.0), "must be positive"),
    "steps past the load": (lambda: LoadStepping(lambda p, t: p, first=1.5), "0 < smallest <= first <= 1"),
    "no path": (lambda: LoadStepping("linear"), "path must be a function"),
    "an adjoint solved for nothing": (lambda: Exact(tolerance=0.0), "tolerance lies between"),
    "fewer than no segments": (lambda: Unrolled(checkpoints=-1), "number of segments"),
    "a penalty that rewards": (lambda: ADMM(rho=-1.0), "rho must be positive"),
    "steps without balance": (lambda: PrimalDual(balance=0.0), "balance of steps must be positive"),
    "a restart nobody knows": (lambda: FISTA(restart="sometimes"), "Restart.NEVER"),
    "a method nobody knows": (lambda: Settings(method="simplex"), "Method.LEAST_SQUARES"),
    "a tolerance that all meet": (lambda: Settings(tolerance=10.0), "between 0 and 1"),
    "fewer iterations than none": (lambda: Settings(noptmax=-2), "noptmax"),
    "a memory without room": (lambda: Settings(memory_megabytes=0.0), "must be positive"),
    "no starts": (lambda: Starts(0), "at least 1"),
    "an ensemble of one": (lambda: Ensemble(1), "at least 2"),
    "a rule nobody knows": (lambda: Strength("best"), "StrengthRule.DISCREPANCY"),
    "a loss nobody knows": (lambda: GroupNoise(loss="l1"), "Loss.NORMAL"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        make()


def test_words_of_a_study_do_in_python_too() -> None:
    """A word that was kept as it is would be compared with members in vain, and be without effect."""
    settings = Settings(method="lbfgsb", noise="known")
    assert (settings.method, settings.noise) == (Method.LBFGSB, Noise.KNOWN)
    assert Settings.from_dict(settings.as_dict()) == settings
    assert GroupNoise(loss="huber").loss is Loss.HUBER
    assert Ensemble(5, "mcmc").method is EnsembleMethod.MCMC
    assert FISTA(restart=Restart.GRADIENT).restart is Restart.GRADIENT


def square(u: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return ((u - p) ** 2).sum()


def test_what_is_no_start_no_energy_or_no_strategy_is_refused() -> None:
    u, p = torch.zeros(2), torch.ones(())
    with pytest.raises(ValueError, match="complex"):
        argmin(square, u.to(torch.complex128), p)
    with pytest.raises(ValueError, match="it returned float"):
        argmin(lambda u, p: 3.0, u, p)
    with pytest.raises(TypeError, match="adjoint must be a strategy"):
        argmin(square, u, p, adjoint="exact")
    with pytest.raises(TypeError, match="solver must be a solver"):
        argmin(square, u, p, solver=Newton)
