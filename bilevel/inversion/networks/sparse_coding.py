"""Sparse codes as a differentiable layer: the elastic net solved to high accuracy, its derivative exact on the active set.

a*(y, D) = argmin |y - D a|^2 / 2 + l1 |a|_1 + l2 |a|^2 / 2. Where no atom sits at a kink the active set S is locally
constant and a*_S = (D_S^T D_S + l2)^-1 (D_S^T y - l1 sign): Mairal, Bach, Ponce 2012, proposition 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.composite.regularisers import require_nonnegative, soft_threshold
from bilevel.report import ConvergenceError, InputError, SingularError, require_finite


@dataclass(frozen=True)
class ElasticNet:
    """The inner problem's constants and the accuracy of its solver.

    tolerance: on the optimality conditions, relative to l1. kink: an atom within this relative distance of switching
    (a zero code whose correlation is almost l1, or a code that is almost zero) is reported as near a kink.
    """

    l1: float = 0.1
    l2: float = 1e-3
    tolerance: float = 1e-9
    kink: float = 1e-4
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        require_nonnegative("lambda (l1)", self.l1)
        require_nonnegative("l2", self.l2)
        if self.l1 == 0:
            raise InputError("the sparse code needs l1 > 0; without it the problem is a linear solve")


@dataclass(frozen=True)
class Codes:
    """Sparse codes (batch, atoms), differentiable in data and dictionary, and the atoms where that derivative is fragile.

    near_kinks (batch, atoms) is True where a tiny change of the dictionary may switch the atom on or off: the
    hypergradient is then one-sided.
    """

    values: Tensor
    near_kinks: Tensor

    @property
    def sentence(self) -> str:
        count, samples = int(self.near_kinks.sum()), int(self.near_kinks.any(-1).sum())
        if count == 0:
            return "no atom is near a kink: the hypergradient is the derivative"
        atoms = self.near_kinks.any(0).nonzero().flatten().tolist()
        shown = ", ".join(map(str, atoms[:10])) + (", ..." if len(atoms) > 10 else "")
        return f"{count} codes in {samples} samples are near a kink (atoms {shown}): their hypergradient is one-sided"


def sparse_codes(y: Tensor, dictionary: Tensor, problem: ElasticNet, start: Tensor | None = None) -> Codes:
    """Codes of y (batch, m) in a dictionary (m, atoms).

    Raises InputError for sizes that do not fit, ConvergenceError where the solver ran out, SingularError where l2 = 0 and
    the active atoms are linearly dependent.
    """
    if y.dim() != 2 or dictionary.dim() != 2 or y.shape[1] != dictionary.shape[0]:
        raise InputError(
            f"data {tuple(y.shape)} and dictionary {tuple(dictionary.shape)} do not fit: (batch, m) and (m, atoms)"
        )
    if y.dtype != dictionary.dtype:
        raise InputError(f"the data are {y.dtype}, the dictionary is {dictionary.dtype}; convert one with .to(...)")
    require_finite("the data", y)
    require_finite("the dictionary", dictionary)
    values = _Codes.apply(y, dictionary, problem, start)
    return Codes(values, _near_kinks(values.detach(), y.detach(), dictionary.detach(), problem))


class _Codes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, dictionary: Tensor, problem: ElasticNet, start: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        codes = _solve(y, dictionary, problem, start)
        ctx.save_for_backward(codes, y, dictionary)
        ctx.problem = problem
        return codes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent: Tensor):  # type: ignore[no-untyped-def]
        codes, y, dictionary = ctx.saved_tensors
        beta = _active_solve(codes != 0, dictionary, ctx.problem.l2, cotangent)
        residual = y - codes @ dictionary.mT
        along = residual.mT @ beta - (beta @ dictionary.mT).mT @ codes
        return beta @ dictionary.mT, along, None, None


def _solve(y: Tensor, dictionary: Tensor, problem: ElasticNet, start: Tensor | None) -> Tensor:
    """FISTA with restart until the signs stay, then the exact solve on the active set; repeated until it is optimal."""
    gram, target = dictionary.mT @ dictionary, y @ dictionary
    lipschitz = float(torch.linalg.matrix_norm(gram, 2)) + problem.l2
    a = torch.zeros_like(target) if start is None else start.detach().clone()
    point, age = a, torch.ones_like(a[:, :1])
    tolerance = max(problem.tolerance, 200 * torch.finfo(a.dtype).eps / problem.l1)
    for iteration in range(1, problem.max_iterations + 1):
        gradient = point @ gram - target + problem.l2 * point
        new = soft_threshold(point - gradient / lipschitz, torch.as_tensor(problem.l1 / lipschitz).to(a))
        uphill = ((point - new) * (new - a)).sum(1, keepdim=True) > 0
        age = torch.where(uphill, torch.ones_like(age), age)
        older = 0.5 * (1 + (1 + 4 * age.square()).sqrt())
        point = new + torch.where(uphill, 0.0, (age - 1) / older) * (new - a)
        a, age = new, older
        if iteration % 25 == 0:
            polished = _polish(a, gram, target, problem)
            if bool((_violation(polished, gram, target, problem) <= tolerance).all()):
                return polished
    worst = float(_violation(a, gram, target, problem).max())
    raise ConvergenceError(
        f"the sparse code did not reach its optimality conditions in {problem.max_iterations} iterations "
        f"(violation {worst:.2g} of l1); raise max_iterations, l1 or l2"
    )


def _polish(a: Tensor, gram: Tensor, target: Tensor, problem: ElasticNet) -> Tensor:
    """The stationary point on each sample's active set; kept only where it has the signs that it was made from."""
    active = a != 0
    exact = _masked_solve(active, gram, problem.l2, torch.where(active, target - problem.l1 * torch.sign(a), 0.0))
    same = ((torch.sign(exact) == torch.sign(a)) | ~active).all(1, keepdim=True)
    return torch.where(same, exact, a)


def _violation(a: Tensor, gram: Tensor, target: Tensor, problem: ElasticNet) -> Tensor:
    """Distance to the optimality conditions per sample, relative to l1."""
    correlation = target - a @ gram - problem.l2 * a
    inside = torch.relu(correlation.abs() - problem.l1)
    on = (correlation - problem.l1 * torch.sign(a)).abs()
    return torch.where(a != 0, on, inside).amax(1) / problem.l1


def _active_solve(active: Tensor, dictionary: Tensor, l2: float, right: Tensor) -> Tensor:
    return _masked_solve(active, dictionary.mT @ dictionary, l2, torch.where(active, right, 0.0))


def _masked_solve(active: Tensor, gram: Tensor, l2: float, right: Tensor) -> Tensor:
    """(gram_SS + l2)^-1 right_S for every sample's own S, zero elsewhere; sorted so that systems are as small as the largest S."""
    size = max(int(active.sum(1).max()) if len(active) else 0, 1)
    order = torch.argsort(active.to(torch.int8), dim=1, descending=True, stable=True)[:, :size]
    on = active.gather(1, order)
    block = gram[order[:, :, None], order[:, None, :]]
    both = on[:, :, None] & on[:, None, :]
    identity = torch.eye(size).to(gram)
    matrix = torch.where(both, block, 0.0) + identity * torch.where(on, l2, 1.0).to(gram)[:, :, None]
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool((info != 0).any()):
        raise SingularError("the active atoms of a sample are linearly dependent and l2 = 0; set l2 > 0")
    solved = torch.cholesky_solve(right.gather(1, order).unsqueeze(-1), factor).squeeze(-1)
    return torch.zeros_like(right).scatter(1, order, torch.where(on, solved, 0.0))


def _near_kinks(a: Tensor, y: Tensor, dictionary: Tensor, problem: ElasticNet) -> Tensor:
    correlation = ((y - a @ dictionary.mT) @ dictionary).abs()
    almost_on = (a == 0) & (correlation > (1 - problem.kink) * problem.l1)
    scale = a.abs().amax(1, keepdim=True)
    return almost_on | ((a != 0) & (a.abs() < problem.kink * scale))
