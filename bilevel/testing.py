"""Checks for whoever adds a problem or a linear solver: what must hold, tried by finite differences and exact algebra.

Each check raises AssertionError with a sentence that says what does not hold; our own tests are made of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilevel.implicit.checks import NOISE, taylor_order
from bilevel.implicit.leaves import refuse_undeclared, split_params
from bilevel.linalg.operator import LinearOperator, Sparse, SparsePattern, Structure
from bilevel.linalg.solver import LinearSolver
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError, InputError, SingularError
from bilevel.torch_internals import Constants

STEPS = [1e-2 / 2**k for k in range(8)]
MakeOperator = Callable[[Tensor, Structure], LinearOperator]
"""An operator from a dense matrix (*batch, n, n) and what is known of it."""


def check_problem(problem: Problem, u: Tensor, params: Params = None, *, seed: int = 0) -> None:
    """Raise AssertionError unless all derivatives of a problem agree at u, and what it says of its structure is true.

    u: an unknown as the user would give it, where the problem is smooth. Tried are: the residual against the energy;
    `value_and_residual`; the tangent, `product` and `product_transposed` against the residual; `parameter_vjp` and
    `parameter_jvp` against the residual; symmetry, definiteness and null space of the tangent; undeclared tensors
    (UndeclaredTensorError).
    """
    problem = problem.for_unknown(u)
    u = u.detach().reshape(*u.shape[: problem.batch_dims], -1)
    leaves, _, rebuild = split_params(problem.collect(params))
    refuse_undeclared(problem, u, rebuild, leaves, Constants())
    leaves = [leaf.detach() for leaf in leaves]
    params = rebuild(leaves)
    generator = torch.Generator().manual_seed(seed)
    v, w = (_random(u, generator) for _ in range(2))
    if isinstance(problem, EnergyProblem):
        _check_energy(problem, u, params, v)
    _check_tangent(problem, u, params, v, w)
    moves = [_random(leaf, generator) for leaf in leaves]
    residual = problem.residual(u, params)
    change = _derivative(
        "the residual in the parameters",
        lambda h: problem.residual(u, rebuild([p + h * move for p, move in zip(leaves, moves, strict=True)])),
    )
    wanted = [leaf.clone().requires_grad_() for leaf in leaves]
    if leaves:
        with torch.no_grad():
            by_leaf = problem.parameter_vjp(u, rebuild(wanted), w, wanted)
        found = sum(((g * move).sum() for g, move in zip(by_leaf, moves, strict=True)), torch.zeros(()))
        _agree("parameter_vjp", found, (w * change).sum(), _size(w) * _size(change) + _size(residual) * 1e-9)
        with torch.no_grad():
            columns = problem.parameter_jvp(u, params, [rebuild(list(moves))] * 2)
        if columns is not None:
            _agree("parameter_jvp", columns[1], change, _size(change))


def _check_energy(problem: EnergyProblem, u: Tensor, params: Params, v: Tensor) -> None:
    residual, value = problem.residual(u, params), problem.value(u, params)
    together = problem.value_and_residual(u, params)
    _agree("value_and_residual (the energy)", together[0], value, _size(value))
    _agree("value_and_residual (the residual)", together[1], residual, _size(residual))
    slope = _derivative("the energy", lambda h: problem.value(u + h * v, params))
    _agree("the residual as the energy's slope", (residual * v).sum(-1), slope, _size(residual) * _size(v))


def _check_tangent(problem: Problem, u: Tensor, params: Params, v: Tensor, w: Tensor) -> None:
    change = _derivative("the residual", lambda h: problem.residual(u + h * v, params))
    with torch.no_grad():
        tangent, structure = problem.tangent(u, params), problem.structure
        transposed = problem.product_transposed(u, params, w)
        size = _size(change)
        _agree("tangent", tangent.matmul(v), change, size)
        _agree("product", problem.product(u, params, v), change, size)
        _agree("product_transposed", (transposed * v).sum(), (w * change).sum(), _size(w) * size)
        _agree("the tangent's transpose", tangent.matmul_transposed(w), transposed, _size(transposed))
        if structure.symmetric:
            _agree("structure.symmetric", problem.product(u, params, w), transposed, _size(transposed))
        if structure.positive_definite:
            assert bool(((v * change).sum(-1) > 0).all()), (
                "the structure promises a positive definite tangent; it is not"
            )
        if structure.null_space is not None:
            for z in structure.null_space.mT:
                image = tangent.matmul(z.expand_as(u))
                assert _size(image) <= 1e-8 * size, f"the declared null space is not one: |H z| = {_size(image):.2g}"


def _derivative(what: str, f: Callable[[float], Tensor]) -> Tensor:
    """df/dh at 0 by Richardson's central differences; f must be smooth there."""
    with torch.no_grad():
        h = 1e-3
        wide, narrow = ((f(s) - f(-s)) / (2 * s) for s in (h, 0.5 * h))
        derivative = (4.0 * narrow - wide) / 3.0
        base = f(0.0)
        remainders = [_size(f(s) - base - s * derivative) for s in STEPS]
    order = taylor_order(STEPS, remainders, NOISE * torch.finfo(base.dtype).eps * max(_size(base), _size(f(STEPS[0]))))
    assert order > 1.8, f"{what} is not smooth here: its Taylor remainder falls with order {order:.2f} instead of 2"
    return derivative


def _agree(what: str, found: Tensor, expected: Tensor, size: float, tolerance: float = 1e-6) -> None:
    missed = _size(found - expected)
    assert missed <= tolerance * size or missed == 0.0, f"{what} is wrong by {missed:.2g} where the size is {size:.2g}"


def _size(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    size = float(like.abs().mean()) or 1.0
    return size * torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def sparse_operator(matrix: Tensor, structure: Structure) -> Sparse:
    """The sparse operator of a dense matrix (n, n), its zeros left out."""
    rows, columns = torch.nonzero(matrix, as_tuple=True)
    pattern, scatter = SparsePattern.from_pairs(rows.numpy(), columns.numpy(), len(matrix))
    return Sparse(pattern, pattern.accumulate(torch.from_numpy(scatter), matrix[rows, columns]), structure)


def check_linear_solver(
    solver: LinearSolver,
    make: MakeOperator = sparse_operator,
    *,
    kinds: Sequence[str] = ("definite", "indefinite", "unsymmetric"),
    sizes: Sequence[int] = (1, 2, 30),
    batches: Sequence[tuple[int, ...]] = ((),),
    null_spaces: bool = True,
    tolerance: float = 1e-9,
) -> None:
    """Raise AssertionError unless a linear solver keeps the contract of `LinearSolver` and `Factor`.

    make: the operator that the solver takes, from a dense matrix. kinds: those of matrices that it takes. batches: the
    shapes of batches that it takes. null_spaces: whether it takes declared ones. tolerance: on ||b - A x|| / ||b||. Tried are: solves with the matrix and its
    transpose, one and many right-hand sides at once; what is said of definiteness; singular and not-finite matrices,
    which must raise BilevelError; declared null spaces, true and false ones; wrong shapes.
    """
    generator = torch.Generator().manual_seed(0)
    for kind in kinds:
        for n in sizes:
            for batch in batches:
                matrix = _matrix(kind, n, batch, generator)
                _check_solves(solver, make(matrix, _structure(kind)), matrix, generator, tolerance)
        _check_singular(solver, make, kind)
        if null_spaces:
            _check_null_space(solver, make, kind, tolerance)


def _structure(kind: str, null_space: Tensor | None = None) -> Structure:
    return Structure(symmetric=kind != "unsymmetric", null_space=null_space)


def _matrix(kind: str, n: int, batch: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Well-conditioned matrices (*batch, n, n) with about three entries in a row."""
    full = torch.randn(*batch, n, n, generator=generator, dtype=torch.float64)
    thin = torch.where(torch.rand(n, n, generator=generator) < 3.0 / n, full, 0.0)
    if kind == "unsymmetric":
        return 0.3 * thin + torch.diag(2.0 + torch.rand(n, generator=generator, dtype=torch.float64))
    if kind == "definite":
        return thin @ thin.mT + torch.eye(n, dtype=torch.float64)
    signs = torch.where(torch.arange(n) % 3 == 0, -1.0, 1.0).double()
    return 0.05 * (thin + thin.mT) + torch.diag(signs * (1.0 + torch.rand(n, generator=generator, dtype=torch.float64)))


def _check_solves(
    solver: LinearSolver, A: LinearOperator, matrix: Tensor, generator: torch.Generator, tolerance: float
) -> None:
    factor = solver.factor(A)
    for lead in ((), (1,), (4,), (2, 3)):
        b = torch.randn(*lead, *matrix.shape[:-1], generator=generator, dtype=torch.float64)
        for name, solve, m in (
            ("solve", factor.solve, matrix),
            ("solve_transposed", factor.solve_transposed, matrix.mT),
        ):
            x = solve(b.clone().requires_grad_())
            missed = torch.linalg.vector_norm((m @ x.unsqueeze(-1)).squeeze(-1) - b, dim=-1)
            worst = float((missed / torch.linalg.vector_norm(b, dim=-1)).max())
            assert x.shape == b.shape, f"{name} returned shape {tuple(x.shape)} for right-hand sides {tuple(b.shape)}"
            assert worst <= tolerance, f"{name} leaves a relative residual of {worst:.2g} (n = {A.n}, lead {lead})"
            assert not x.requires_grad, f"{name} must return numbers without a history of gradients"
        assert not bool(factor.solve(torch.zeros_like(b)).any()), "the solution for b = 0 is not zero"
    if A.structure.symmetric and factor.positive_definite is not None:
        truth = (torch.linalg.eigvalsh(matrix) > 0).all(-1)
        said = torch.as_tensor(factor.positive_definite).expand(truth.shape)
        assert torch.equal(said, truth), f"positive_definite says {said}, the eigenvalues say {truth}"
    with_wrong_shape = torch.zeros(*matrix.shape[:-2], A.n + 1, dtype=torch.float64)
    assert _raises(lambda: factor.solve(with_wrong_shape), InputError), "a right-hand side of wrong length is taken"


def _check_singular(solver: LinearSolver, make: MakeOperator, kind: str) -> None:
    chain = _floating_chain(12, kind)
    assert _raises(lambda: solver.factor(make(chain, _structure(kind))).solve(_uneven(12)), BilevelError), (
        "a singular matrix without a declared null space is solved in silence"
    )
    broken = chain + torch.eye(12, dtype=torch.float64)
    broken[3, 3] = math.nan
    assert _raises(lambda: solver.factor(make(broken, _structure(kind))).solve(_uneven(12)), BilevelError), (
        "a matrix with NaN is solved in silence"
    )


def _check_null_space(solver: LinearSolver, make: MakeOperator, kind: str, tolerance: float) -> None:
    n = 12
    chain, z = _floating_chain(n, kind), torch.full((n, 1), n**-0.5, dtype=torch.float64)
    A = make(chain, _structure(kind, z))
    b = _uneven(n)
    factor = solver.factor(A)
    for x, matrix in ((factor.solve(b), chain), (factor.solve_transposed(b), chain.mT)):
        missed = _size(matrix @ x - A.structure.project(b)) / _size(b)
        assert missed <= 10 * tolerance, f"with a null space the relative residual is {missed:.2g}"
        assert abs(float(x @ z)) <= 1e-8 * _size(x), "the solution is not orthogonal to the declared null space"
    wrong = torch.zeros(n, 1, dtype=torch.float64)
    wrong[0] = 1.0
    assert _raises(lambda: solver.factor(make(chain, _structure(kind, wrong))), SingularError), (
        "a declared null space that is none is taken"
    )


def _floating_chain(n: int, kind: str) -> Tensor:
    """Springs between neighbours, held nowhere: constants are its null space (also of the transpose)."""
    ones = torch.ones(n - 1, dtype=torch.float64)
    chain = torch.diag(torch.cat([ones[:1], 2 * ones[1:], ones[:1]])) - torch.diag(ones, 1) - torch.diag(ones, -1)
    if kind == "indefinite":
        signs = torch.where(torch.arange(n - 1) % 3 == 0, -1.0, 1.0).double()
        gaps = torch.diag(ones, 1)[: n - 1] - torch.eye(n, dtype=torch.float64)[: n - 1]
        return gaps.mT @ (signs.unsqueeze(-1) * gaps)
    if kind == "unsymmetric":
        turn = torch.diag(ones, 1) - torch.diag(ones, -1)  # a circulation keeps row and column sums at zero
        turn[0, -1], turn[-1, 0] = -1.0, 1.0
        return chain + 0.3 * turn
    return chain


def _uneven(n: int) -> Tensor:
    return torch.linspace(-1.0, 2.0, n, dtype=torch.float64) ** 3


def _raises(call: Callable[[], object], error: type[Exception]) -> bool:
    try:
        call()
    except error:
        return True
    return False
