"""Guards: what theory asks of steps and operators, measured; and certificates that say whether a network is stable.

Sources: Bauschke & Combettes 2017, sections 4.2-4.5 (cocoercive, averaged, firmly nonexpansive); Pesquet, Repetti,
Terris, Wiaux 2021, eq. (17) (Jacobian penalty for denoisers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bilevel.inversion.networks.alista import ALISTA
from bilevel.inversion.networks.lista import StepThresholdISTA
from bilevel.inversion.networks.network import UnrolledNetwork
from bilevel.report import ConvergenceError, InputError

Map = Callable[[Tensor], Tensor]


def jacobian_norm(map: Map, x: Tensor, iterations: int = 30, seed: int = 0, differentiable: bool = False) -> Tensor:
    """The spectral norm of the Jacobian of `map` at every sample of x (batch, ...), (batch,), by power iteration.

    An estimate from below. With `differentiable`, the last product is differentiable in what the map is made of.
    """
    dims = tuple(range(1, x.dim()))
    x = x.detach()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype).to(x.device)
    v = v / _norm(v, dims)
    with torch.no_grad():
        for _ in range(iterations):
            w = torch.func.jvp(map, (x,), (v,))[1]
            v = torch.func.vjp(map, x)[1](w)[0]
            v = v / _norm(v, dims).clamp_min(torch.finfo(x.dtype).tiny)
    with torch.set_grad_enabled(differentiable):
        return _norm(torch.func.jvp(map, (x,), (v,))[1], dims).reshape(-1)


def _norm(v: Tensor, dims: tuple[int, ...]) -> Tensor:
    return torch.linalg.vector_norm(v, dim=dims, keepdim=True)


def nonexpansiveness_penalty(denoiser: Map, x: Tensor, margin: float = 0.05, iterations: int = 5) -> Tensor:
    """mean over samples of max(|J|, 1 - margin) - (1 - margin), with J the Jacobian of 2 D - 1 at x.

    Zero where the denoiser D is firmly nonexpansive at x with the stated margin: D is firmly nonexpansive exactly when
    2 D - 1 is nonexpansive. Differentiable; add it to the training loss (Pesquet et al. 2021, eq. 17).
    """
    norm = jacobian_norm(lambda u: 2 * denoiser(u) - u, x, iterations, differentiable=True)
    return torch.relu(norm - (1 - margin)).mean()


def cocoercivity(matrix: Tensor) -> float:
    """The largest beta with <M x, x> >= beta |M x|^2 for all x, for a square M (n, n); negative if M is not monotone.

    A forward step x - s M x is nonexpansive exactly for 0 <= s <= 2 beta. For a symmetric positive semidefinite M,
    beta = 1 / |M|. Evaluated on the range of M: M's null space moves nothing.
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"cocoercivity is a property of a square matrix, got shape {tuple(matrix.shape)}")
    u, s, vh = torch.linalg.svd(matrix.double())
    rank = int((s > s[0] * len(s) * torch.finfo(torch.float64).eps).sum())
    if rank == 0:
        return torch.inf
    # On x = V S^-1 z + null-space part, M x = U z and <M x, x> = z^T U^T V S^-1 z + z^T U^T x0: the last must vanish.
    leak = u[:, :rank].mT @ vh[rank:].mT
    if leak.numel() and float(leak.abs().max()) > 1e-8:
        return -torch.inf
    core = u[:, :rank].mT @ (vh[:rank].mT / s[:rank])
    return float(torch.linalg.eigvalsh(0.5 * (core + core.mT))[0])


def step_bound(network: StepThresholdISTA | ALISTA) -> float:
    """The largest step for which the network's layers are nonexpansive: twice the cocoercivity constant of W^T A."""
    if type(network) not in (StepThresholdISTA, ALISTA):
        raise InputError(
            f"a {type(network).__name__} has no bound on its steps; it is for StepThresholdISTA and ALISTA"
        )
    if isinstance(network, ALISTA):
        return 2 * cocoercivity(network.weight.matrix().mT @ network.operator.matrix())
    return 2 / network.operator.norm() ** 2


def clamp_steps(network: StepThresholdISTA | ALISTA, bound: float | None = None) -> int:
    """Clamp all steps to [0, bound], by default `step_bound`; returns how many were changed.

    Raises InputError where no positive step is nonexpansive (a weight that is not cocoercive with the operator).
    """
    bound = step_bound(network) if bound is None else bound
    if bound <= 0:
        raise InputError("no step makes these layers nonexpansive: the weight is not cocoercive with the operator")
    changed = 0
    with torch.no_grad():
        for step in network.steps:
            if not 0 <= float(step.detach()) <= bound:
                step.clamp_(0, bound)
                changed += 1
    return changed


@dataclass(frozen=True)
class Certificate:
    """What is known of a network's or an iteration's stability.

    lipschitz: the largest Jacobian norm found (an estimate from below; `bound` is where theory promises convergence).
    residuals: |x_{k+1} - x_k| / |x_1 - x_0| per iteration, worst sample. rate: their geometric mean over the last half.
    """

    lipschitz: float
    bound: float
    residuals: tuple[float, ...]
    reached: bool

    @property
    def rate(self) -> float:
        """Contraction per iteration over the last half of the history; NaN when it is too short or not finite."""
        tail = torch.tensor(self.residuals[len(self.residuals) // 2 :], dtype=torch.float64)
        if len(tail) < 2 or not bool(torch.isfinite(tail).all()) or float(tail.min()) <= 0:
            return float("nan")
        return float((tail[-1] / tail[0]) ** (1 / (len(tail) - 1)))

    @property
    def stable(self) -> bool:
        """Whether the iteration reached its tolerance, or contracts towards it."""
        return self.reached or self.rate < 1

    @property
    def certified(self) -> bool:
        """Stable, and nowhere seen to leave the region where theory promises nonexpansiveness."""
        return self.stable and self.lipschitz <= self.bound * (1 + 1e-6)

    @property
    def verdict(self) -> str:
        """One sentence."""
        last = self.residuals[-1] if self.residuals else 0.0
        measured = (
            f"Lipschitz estimate {self.lipschitz:.3g} against {self.bound:.3g}, "
            f"fixed-point residual {last:.2g} after {len(self.residuals)} iterations"
        )
        if not self.stable:
            return f"UNSTABLE: the iteration does not converge ({measured}); lower the step or constrain the network"
        if not self.certified:
            return f"converges on these data, but without a guarantee: outside the nonexpansive region ({measured})"
        return f"stable: nonexpansive wherever it was measured, and it converges ({measured})"

    def require_stable(self) -> None:
        """Raise ConvergenceError with the verdict unless the iteration is stable."""
        if not self.stable:
            raise ConvergenceError(self.verdict)


def certify(
    map: Map,
    x0: Tensor,
    *,
    probe: Map | None = None,
    iterations: int = 200,
    tolerance: float = 1e-6,
    bound: float = 1.0,
) -> Certificate:
    """Iterate x <- map(x) from x0 (batch, ...), and measure the Jacobian norm of `probe` (default: of the map).

    The norm is taken at the start and at the end. For a denoiser D pass probe = 2 D - 1.
    """
    probe = map if probe is None else probe
    dims = tuple(range(1, x0.dim()))
    residuals: list[float] = []
    reached = False
    with torch.no_grad():
        x = x0
        norms = [jacobian_norm(probe, x)]
        first: Tensor | None = None
        for _ in range(iterations):
            new = map(x)
            change = _norm(new - x, dims)
            first = change.clamp_min(torch.finfo(x.dtype).tiny) if first is None else first
            residuals.append(float((change / first).max()))
            x = new
            reached = residuals[-1] <= tolerance
            if reached or not residuals[-1] < 1e6:
                break
        if bool(torch.isfinite(x).all()):
            norms.append(jacobian_norm(probe, x))
    return Certificate(float(torch.cat(norms).max()), bound, tuple(residuals), reached)


def certify_network(network: UnrolledNetwork, y: Tensor) -> Certificate:
    """Certificate of an unrolled network on data y: the change of the estimate from layer to layer.

    lipschitz is the norm of the Jacobian of the whole network with respect to its data, against 1 / (smallest singular
    value kept by an exact inverse) unknown in general: the bound is infinite, and the verdict rests on the history.
    """
    y = y.reshape(-1, *network.operator.range) if y.dim() <= len(network.operator.range) else y
    with torch.no_grad():
        estimates = [network.start_checked(y).x, *network.iterates(y)]
        changes = [(b - a).flatten(1).norm(dim=1) for a, b in pairwise(estimates)]
        first = changes[0].clamp_min(torch.finfo(y.dtype).tiny)
        residuals = tuple(float((c / first).max()) for c in changes)
    norm = jacobian_norm(lambda data: network.run(data, network.start(data), 0).x, y)
    return Certificate(float(norm.max()), torch.inf, residuals, reached=residuals[-1] <= 1e-6)
