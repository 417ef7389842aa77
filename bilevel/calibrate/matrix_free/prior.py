"""The priors of a problem together as one sparse Gaussian at a point: products, solves, samples, pointwise variances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.field_prior import FieldPrior
from bilevel.calibrate.joint_prior import JointPrior
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.linalg.operator import Sparse, SparsePattern, Structure
from bilevel.linalg.registry import factorise
from bilevel.report import InputError, SingularError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class SparsePrior:
    """Precision P = R^T R (n, n), with R (rows, n) the sparse derivatives of all priors' residuals in t; rows of vectors.

    Raises InputError where P is singular: every parameter of a large field needs a prior that is finite by itself.
    """

    def __init__(self, root: csr_matrix) -> None:
        self.root = root
        self.precision = (root.T @ root).tocsr()
        matrix = self.precision.tocoo()
        pattern, place = SparsePattern.from_pairs(matrix.row, matrix.col, matrix.shape[0])
        values = torch.zeros(pattern.nnz, dtype=torch.float64).index_add(
            0, torch.from_numpy(place), torch.from_numpy(matrix.data)
        )
        try:
            self._factor = factorise(Sparse(pattern, values, Structure(symmetric=True, positive_definite=True)))
        except SingularError:
            raise InputError(
                "the priors leave a direction of the parameters free, as roughness alone does a field's mean: give fields "
                "reference and std, and other parameters prior_mean and prior_std"
            ) from None

    @staticmethod
    def of(problem: CalibrationProblem, t: np.ndarray) -> SparsePrior:
        """The priors of a problem, linearised at t."""
        return SparsePrior(prior_jacobian(problem, t))

    def solve(self, rows: np.ndarray) -> np.ndarray:
        """P^-1 of rows (k, n)."""
        return self._factor.solve(torch.as_tensor(rows)).numpy()

    def matmul(self, rows: np.ndarray) -> np.ndarray:
        """P of rows (k, n)."""
        return (self.precision @ rows.T).T

    def samples(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draws (count, n) about 0: P^-1 R^T of white noise has the covariance P^-1."""
        return self.solve((self.root.T @ generator.normal(size=(self.root.shape[0], count))).T)

    def variances(self) -> np.ndarray:
        """The diagonal (n,) of P^-1.

        Unknowns in the order of their distance to one of them make P block tridiagonal, and the diagonal blocks of its
        inverse follow from those of its neighbours (Takahashi, Fagan & Chin 1973).
        """
        order, ends = _levels(self.precision)
        ordered = self.precision[order][:, order].tocsr()
        spans = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends)]
        inverses: list[np.ndarray] = []
        steps: list[np.ndarray] = []
        for k, here in enumerate(spans):
            block = ordered[here, here].toarray()
            if k:
                beside = ordered[here, spans[k - 1]].toarray()
                steps.append(beside @ inverses[-1])
                block -= steps[-1] @ beside.T
            inverses.append(np.linalg.inv(block))
        found, later = np.empty(len(order)), inverses[-1]
        found[spans[-1]] = np.diag(later)
        for k in range(len(spans) - 2, -1, -1):
            later = inverses[k] + steps[k].T @ later @ steps[k]
            found[spans[k]] = np.diag(later)
        back = np.empty_like(found)
        back[order] = found
        return back


def _levels(matrix: csr_matrix) -> tuple[np.ndarray, list[int]]:
    """Unknowns by their distance in the graph of a matrix, from an end of each of its parts, and where each level ends."""
    from scipy.sparse.csgraph import connected_components, dijkstra

    level, offset = np.full(matrix.shape[0], -1), 0
    graph = abs(matrix)
    count, part_of = connected_components(graph, directed=False)
    if count == len(level):  # every unknown by itself
        return np.arange(count), list(range(1, count + 1))
    for part in range(count):
        members = np.flatnonzero(part_of == part)
        own, far = graph[members][:, members], 0
        for _ in range(3):  # to an unknown that lies far from all others
            distance = dijkstra(own, unweighted=True, directed=False, indices=far)
            far = int(np.argmax(distance))
        level[members] = offset + distance.astype(int)
        offset = int(level.max()) + 1
    order = np.argsort(level, kind="stable")
    return order, np.cumsum(np.bincount(level)).tolist()


def prior_jacobian(problem: CalibrationProblem, t: np.ndarray) -> csr_matrix:
    """R (rows, n): the derivatives of `problem.prior_residual` in t, its rows in their order."""
    from scipy.sparse import csr_matrix, vstack

    point = torch.as_tensor(t)
    slopes = problem.parameters.slopes(point).numpy()
    parts = [_own(problem, parameter, point, slopes) for parameter in problem.parameters.parameters]
    parts += [_joint(problem, prior, point, slopes) for prior in problem.joint_priors]
    for experiment in problem.with_own_fields:
        parts += [_field(problem, experiment, prior, point) for prior in experiment.model.field_priors()]
    return vstack([csr_matrix((0, len(t))), *parts]).tocsr()


def _own(problem: CalibrationProblem, parameter: Parameter, point: torch.Tensor, slopes: np.ndarray) -> csr_matrix:
    """The rows of a single parameter's prior."""
    from scipy.sparse import csr_matrix

    size = len(slopes)
    if not parameter.has_prior:
        return csr_matrix((0, size))
    if not parameter.free:
        raise parameter.error("among large fields, priors may stand on free parameters only, not on formulas")
    place = np.arange(size)[problem.parameters.slices[parameter.label]]
    value = problem.parameters.natural(point)[parameter.label].reshape(-1)
    entries = slopes[place] * parameter.prior_slope(value).numpy()
    return csr_matrix((entries, (np.arange(len(place)), place)), (len(place), size))


def _joint(problem: CalibrationProblem, prior: JointPrior, point: torch.Tensor, slopes: np.ndarray) -> csr_matrix:
    """The rows of a prior of several entries."""
    from scipy.sparse import csr_matrix

    labels = problem.parameters.entry_labels
    place = {label: k for k, label in enumerate(labels)}
    values = problem.parameters.values_of(problem.parameters.natural(point), prior.labels).numpy()
    kept = [k for k, label in enumerate(prior.labels) if label in place]
    columns = np.array([place[prior.labels[k]] for k in kept], dtype=int)
    root = csr_matrix(prior.slope(values)[:, kept] * slopes[columns])
    spread = csr_matrix((np.ones(len(kept)), (np.arange(len(kept)), columns)), (len(kept), len(slopes)))
    return root @ spread


def _field(problem: CalibrationProblem, experiment: Experiment, prior: FieldPrior, t: torch.Tensor) -> csr_matrix:
    """The rows of a model's prior on a field: its whitening, by the slope of each entry."""
    from scipy.sparse import csr_matrix

    owner = [p for p in problem.parameters.belonging_to(experiment.owner) if p.name == prior.name]
    if not owner or owner[0].fixed:
        return csr_matrix((prior.count, len(t)))
    if not owner[0].free:
        raise owner[0].error("a large field is a free parameter, or fixed, not a formula of others")
    point = t.detach().clone().requires_grad_()
    values = prior.coordinate(problem.arguments(experiment, point)[prior.name])
    (slopes,) = torch.autograd.grad(values.sum(), point)
    place = np.arange(len(t))[problem.parameters.slices[owner[0].label]]
    if len(place) == 1:  # one value fills the field
        place, slopes = np.repeat(place, len(values)), slopes / len(values)
    spread = csr_matrix((slopes.numpy()[place], (np.arange(len(values)), place)), (len(values), len(t)))
    return math.sqrt(problem.strength) * (prior.matrix(len(values)) @ spread)
