"""Checks for whoever writes a law: what must hold of it, tried by finite differences; our own laws are tested by the same.

Each check raises AssertionError with a sentence that says what does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from physics.constitutive.elastic.hyperelastic import Hyperelastic
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.inelastic.law import InelasticLaw
from physics.constitutive.kinematics import Strain
from physics.constitutive.law import Law

SAMPLES = 24
PRECISE = 1e-6
"""Relative difference that finite differences and rounding may explain."""

SMOOTH = 0.75
"""The least fraction of samples that must agree with differences; the others may have met a kink, as yielding is."""

Params = Mapping[str, Tensor]


def check_law(law: Law, params: Params, state: Tensor | None = None, *, size: float = 1e-2, seed: int = 0) -> None:
    """Raise AssertionError unless the derivatives of a law agree with each other, and it uses what it declares.

    params: parameters for which to try, scalars. size: of the strains (increments of an inelastic law) that are tried.
    state (size,): where an inelastic law starts, by default virgin without stress. Also tried: of elastic laws that rest is
    free of stress and rotations cost nothing, and isotropy of `Hyperelastic` ones; of inelastic ones that `advance` solves
    `residual`, and that what they dissipate is not negative. Raises InputError for parameters out of bounds.
    """
    law.check(params)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(law, ElasticLaw):
        _check_elastic(law, params, size, generator)
    elif isinstance(law, InelasticLaw):
        start = law.initial_state(torch.zeros(6, dtype=torch.float64)) if state is None else state
        _check_inelastic(law, params, start, size, generator)
    else:
        raise TypeError(f"{type(law).__name__} is neither an ElasticLaw nor an InelasticLaw")


def _check_elastic(law: ElasticLaw, params: Params, size: float, generator: torch.Generator) -> None:
    small = law.strain is Strain.SMALL
    h = size * torch.randn(SAMPLES, 1, 3, 3, generator=generator, dtype=torch.float64)
    rest = (torch.zeros(3, 3) if small else torch.eye(3)).to(h).expand(1, 1, 3, 3)
    x = rest + (0.5 * (h + h.mT) if small else h)
    move = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    move = 0.5 * (move + move.mT) if small else move
    _check_declared(law, params, lambda values: law.energy(x, values))
    stress, tangent = law.stress(x, params), law.tangent(x, params, 2)
    stiffness = float(tangent.abs().max())
    at_rest = law.stress(rest, params)
    _require(float(at_rest.abs().max()) <= 1e-10 * stiffness, law, "has a stress at rest")
    _require(bool(law.tangent(rest, params, 2).isfinite().all()), law, "has no finite tangent at rest")
    slope = _difference(lambda step: law.energy(x + step * move, params), size * 1e-3)
    _agree(law, "stress is not the derivative of the energy", (stress * move).sum((-2, -1)), slope, size * stiffness)
    change = _difference(lambda step: law.stress(x + step * move, params), size * 1e-3)
    product = (tangent * move[..., None, None, :, :]).sum((-2, -1))
    _agree(law, "tangent is not the derivative of the stress", product, change, stiffness)
    energy, again = law.energy_and_stress(x, params)
    _agree(law, "energy_and_stress has another stress", again, stress, size * stiffness)
    _agree(law, "energy_and_stress has another energy", energy, law.energy(x, params), size**2 * stiffness)
    _check_parameter_slopes(law, params, lambda values: law.stress(x, values), size * stiffness)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=x.dtype))[0]
    turn = turn * torch.linalg.det(turn).sign()
    turned = turn @ x @ turn.mT if small else turn @ x
    scale = size**2 * stiffness
    _agree(law, "energy is not indifferent to rotation", law.energy(turned, params), law.energy(x, params), scale)
    if isinstance(law, Hyperelastic):
        of_stretches = law.energy_of_stretches(torch.linalg.svdvals(x), params)
        _agree(law, "energy is not that of its principal stretches", of_stretches, law.energy(x, params), scale)


def _check_inelastic(law: InelasticLaw, params: Params, start: Tensor, size: float, generator: torch.Generator) -> None:
    increment = size * torch.randn(SAMPLES, 6, generator=generator, dtype=torch.float64)
    move = size * torch.randn(SAMPLES, 6, generator=generator, dtype=torch.float64)
    previous = start.to(increment).expand(SAMPLES, -1)
    _check_declared(law, params, lambda values: law.residual(previous, increment, previous, values))
    with torch.no_grad():
        state = law.advance(increment, previous, params)
        residual = law.residual(state, increment, previous, params)
        _require(float(residual.abs().max()) <= 1e-9, law, "does not solve its own residual by `advance`")
        change = _difference(lambda step: law.advance(increment + step * move, previous, params)[:, :6], 1e-4)
    tangent = law.consistent_tangent(state, increment, previous, params)
    product = (tangent @ move.unsqueeze(-1)).squeeze(-1)
    scale = float(product.abs().max())
    _agree(law, "consistent tangent is not the derivative of the stress", product, change, scale, SMOOTH)
    _check_parameter_slopes(law, params, lambda values: law.advance(increment, previous, values)[:, :6], scale)
    if type(law).plastic_increment is not InelasticLaw.plastic_increment:
        work = law.dissipation(state, increment, previous, params)
        _require(float(work.min()) >= -1e-9 * size * scale, law, "dissipates a negative work")


def _check_declared(law: Law, params: Params, evaluate: Callable[[Params], Tensor]) -> None:
    recorded = _Recorded(params)
    evaluate(recorded)
    known = set(law.parameters.given_in(params).names)
    undeclared, unused = sorted(recorded.read - known), sorted(known - recorded.read)
    _require(not undeclared, law, f"uses {', '.join(undeclared)}, which it does not declare")
    _require(not unused, law, f"declares {', '.join(unused)}, which it does not use")


def _check_parameter_slopes(law: Law, params: Params, function: Callable[[Params], Tensor], scale: float) -> None:
    """All derivatives by autodiff against differences, in proportion to each parameter's own size."""
    for name in law.parameters.given_in(params).names:
        found, differences = _parameter_slope(function, params, name)
        _agree(law, f"derivative in {name} is wrong", found, differences, scale, SMOOTH)


def _parameter_slope(function: Callable[[Params], Tensor], params: Params, name: str) -> tuple[Tensor, Tensor]:
    """The derivative (samples,) of some combination of what each sample gives, by autodiff and by differences."""
    value = params[name].detach()
    unit = value.abs().clamp(min=1e-3)
    weights = torch.randn(function(params).shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def combined(step: Tensor | float) -> Tensor:
        return (function({**params, name: value + step * unit}) * weights).flatten(1).sum(1)

    zero = torch.zeros_like(value)
    found = torch.func.jvp(combined, (zero,), (torch.ones_like(zero),))[1]
    with torch.no_grad():
        return found, _difference(combined, 1e-5)


class _Recorded(Mapping[str, Tensor]):
    """Parameters that remember which of them were read."""

    def __init__(self, params: Params) -> None:
        self.params, self.read = params, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


def _difference(function: Callable[[float], Tensor], step: float) -> Tensor:
    """The derivative at 0, to fourth order."""
    near, far = ((function(h) - function(-h)) / (2.0 * h) for h in (step, 2.0 * step))
    return (4.0 * near - far) / 3.0


def _agree(law: Law, fault: str, found: Tensor, wanted: Tensor, scale: float, least: float = 1.0) -> None:
    """Whether enough samples, along the first dimension, agree to a fraction of the scale."""
    gap = (found - wanted).abs().reshape(len(found), -1).amax(1)
    good = float((gap <= PRECISE * scale).double().mean())
    _require(good >= least, law, f"{fault} (largest difference {float(gap.max()):.3g} of {scale:.3g})")


def _require(holds: bool, law: Law, fault: str) -> None:
    if not holds:
        raise AssertionError(f"{type(law).__name__} {fault}")
