"""A calibration problem: experiments, parameters, and the weighted residuals with their exact derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.experiment import Experiment, require_consistent
from bilevel.calibrate.jacobian import gradient_of, jacobian_of
from bilevel.calibrate.joint_prior import JointPrior
from bilevel.calibrate.misfit import Misfits
from bilevel.calibrate.model import ModelReports
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.settings import Sweep
from bilevel.implicit.memory import visiting
from bilevel.report import BilevelError, Counts, InputError

Evaluated = Callable[[Experiment, Tensor, Tensor, bool], tuple[Tensor, Tensor, ModelReports]]
"""At a point t: predictions (n,) of an experiment, d residual[rows] / d t or the gradient (1, p), and how it went."""
StandIn = Callable[[Experiment, Exception], Tensor | None]
"""Predictions (n,) in place of those of an experiment whose model failed, None for none."""


class CalibrationProblem:
    """Minimise phi(t) = sum of (w (y - d))^2 over the fitted rows + the sum of the priors' squares.

    Models may have priors of their own on fields, whose squares `strength` multiplies. joint_priors: of several parameters.

    Groups may have other noise than normal, and then other residuals (bilevel.calibrate.misfit).

    Raises InputError when nothing can be fitted: no free parameter, no row with a weight, names that no model knows.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        experiments: Sequence[Experiment],
        sweep: Sweep = Sweep.AUTO,
        strength: float = 1.0,
        joint_priors: Sequence[JointPrior] = (),
    ) -> None:
        self.parameters = ParameterSet(parameters)
        self.experiments = tuple(experiments)
        self.sweep, self.strength = sweep, strength
        self.failing = ""  # the experiment whose model failed last
        self.single_precision: set[str] = set()  # experiments whose models were seen to predict in less than double
        require_consistent(self.parameters, self.experiments)
        self.joint_priors = tuple(joint_priors)
        self._require_priors()
        tables = [e.observations for e in self.experiments]
        self.value = torch.cat([t.value for t in tables])
        self.weight = torch.cat([t.weight for t in tables])
        self.misfit = Misfits.joined([t.misfit for t in tables])
        self.fitted = torch.nonzero(self.weight > 0).reshape(-1)
        if len(self.fitted) == 0:
            raise InputError("every observation has weight 0; nothing can be fitted")

    def changed(
        self,
        parameters: Sequence[Parameter] | None = None,
        experiments: Sequence[Experiment] | None = None,
        strength: float | None = None,
        joint_priors: Sequence[JointPrior] | None = None,
    ) -> CalibrationProblem:
        """The same problem but for what is given."""
        return CalibrationProblem(
            self.parameters.parameters if parameters is None else parameters,
            self.experiments if experiments is None else experiments,
            self.sweep,
            self.strength if strength is None else strength,
            self.joint_priors if joint_priors is None else joint_priors,
        )

    @property
    def groups(self) -> list[tuple[Experiment, str, np.ndarray]]:
        """Each group: its experiment, its name, and its rows among all rows of the problem."""
        found, start = [], 0
        for experiment in self.experiments:
            table = experiment.observations
            found += [(experiment, group, start + table.rows(group).numpy()) for group in table.groups]
            start += len(table)
        return found

    def group_label(self, experiment: Experiment, group: str) -> str:
        """The group's name, made unique by its experiment's when there are several experiments."""
        if group == experiment.name or sum(not e.parameters_of for e in self.experiments) == 1:
            return group
        return f"{experiment.name}/{group}"

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Within it, models may be asked at other points: afterwards they have the states that they had before."""
        states = [{key: value.clone() for key, value in e.model.state().items()} for e in self.experiments]
        try:
            yield
        finally:
            for experiment, state in zip(self.experiments, states):
                experiment.model.restore(state)

    def without(self, name: str, t: np.ndarray) -> CalibrationProblem:
        """The same from t on, without an experiment and the parameters that are its own."""
        kept = []
        for p in self.parameters.at(t).parameters:
            others = tuple(e for e in p.experiments if e != name)
            if others or not p.experiments:
                kept.append(replace(p, experiments=others))
        labels = [label for p in kept for label in p.entry_labels]
        joint = [left for prior in self.joint_priors if (left := prior.among(labels)) is not None]
        experiments = [e for e in self.experiments if name not in (e.name, e.parameters_of)]
        return self.changed(kept, experiments, joint_priors=joint)

    def prior_residual(self, t: Tensor) -> Tensor:
        """The residuals of all priors: of single parameters, of several together, and of the models' fields; differentiable.

        `strength` multiplies the squares of the fields'.
        """
        own, fields = self.parameters.prior_residual(t), math.sqrt(self.strength) * self._fields(t)
        if not self.joint_priors:
            return torch.cat([own, fields])
        natural = self.parameters.natural(t)
        joint = [prior.residual(self.parameters.values_of(natural, prior.labels)) for prior in self.joint_priors]
        return torch.cat([own, *joint, fields])

    def prior_means(self) -> dict[str, float]:
        """The natural mean of each entry that has a prior, by its label; but for the models' fields."""
        found: dict[str, float] = {}
        for p in self.parameters.parameters:
            if p.prior_mean is not None:
                found |= dict(zip(p.entry_labels, np.broadcast_to(p.prior_mean, p.size).tolist()))
        for prior in self.joint_priors:
            found |= dict(zip(prior.labels, prior.mean.tolist()))
        return found

    def _require_priors(self) -> None:
        """InputError where a joint prior names what is not there, or what has a prior already."""
        taken = {label for p in self.parameters.parameters if p.has_prior for label in p.entry_labels}
        for prior in self.joint_priors:
            self.parameters.require_entries(prior.labels, "joint prior")
            for label in prior.labels:
                if label in taken:
                    raise InputError(
                        f"joint prior: '{label}' has a prior already, and would count twice; take one away"
                    )
            taken |= set(prior.labels)

    @property
    def with_own_fields(self) -> list[Experiment]:
        """Experiments whose fields nobody before them has: those that share all parameters share their field's prior, too."""
        return list({tuple(self.parameters.entries_of(e.owner)): e for e in reversed(self.experiments)}.values())

    def field_rows(self, t: np.ndarray) -> int:
        """How many rows of priors are of the models' fields, which stand last."""
        return len(self._fields(torch.as_tensor(t)))

    def _fields(self, t: Tensor) -> Tensor:
        fields = []
        for experiment in self.with_own_fields:
            arguments = self.arguments(experiment, t)
            fields += [prior.residual(arguments[prior.name]) for prior in experiment.model.field_priors()]
        return torch.cat([t.new_zeros(0), *fields])

    def predict(self, t: Tensor) -> Tensor:
        """Predictions (n,) of all rows of all experiments; differentiable in t (p,)."""
        return torch.cat([self._predictions(e, t) for e in self.experiments])

    def evaluate(
        self,
        t: np.ndarray,
        with_jacobian: bool = True,
        stand_in: StandIn | None = None,
        evaluated: Evaluated | None = None,
    ) -> Evaluation:
        """Residuals, and the exact Jacobian or gradient, at t.

        Lets BilevelError and InputError of the models pass; with a stand-in, experiments that fail are given what it says.
        evaluated: what evaluates an experiment in the place of this process.
        """
        point = torch.as_tensor(np.asarray(t, dtype=float))
        self.parameters.require_allowed(self.parameters.natural(point))
        residuals, predictions, blocks = [], [], []
        reports: list[ModelReports] = []
        gradient = torch.zeros(len(point), dtype=torch.float64)
        failing = ""
        for experiment in self.experiments:
            rows = torch.nonzero(experiment.observations.weight > 0).reshape(-1)
            try:
                prediction, block, report = (evaluated or self.evaluated)(experiment, point, rows, with_jacobian)
            except Exception as error:
                self.failing = failing = experiment.name
                if stand_in is None or (found := stand_in(experiment, error)) is None:
                    raise
                prediction, report = found, ModelReports()
                block = torch.zeros(len(rows) if with_jacobian else 1, len(point), dtype=torch.float64)
            if with_jacobian:
                blocks.append(block)
            else:
                gradient += block[0]
            residuals.append(experiment.observations.misfit.residual(prediction)[rows])
            predictions.append(prediction)
            reports.append(report)
        residual, jacobian = self._with_priors(point, residuals, blocks if with_jacobian else None)
        if jacobian is not None:
            gradient = 2 * jacobian.T @ residual
        else:
            gradient += torch.func.grad(lambda t: (self.prior_residual(t) ** 2).sum())(point)
        return Evaluation(
            t=point.numpy().copy(),
            residual=residual.numpy(),
            gradient=gradient.numpy(),
            jacobian=None if jacobian is None else jacobian.numpy(),
            prediction=torch.cat(predictions).numpy(),
            priors=len(residual) - len(self.fitted),
            size=self._size(torch.cat(predictions)),
            approximate=max(e.model.precision for e in self.experiments),
            stale=jacobian is not None and any(e.model.stale for e in self.experiments),
            failing=failing,
            **_inner_work(reports),
        )

    def evaluated(
        self, experiment: Experiment, point: Tensor, rows: Tensor, with_jacobian: bool
    ) -> tuple[Tensor, Tensor, ModelReports]:
        """Predictions of an experiment, d residual[rows] / d t or the gradient (1, p) of their squares, and how it went."""
        misfit = experiment.observations.misfit
        entries = torch.as_tensor(self.parameters.entries_of(experiment.owner))
        function = self._restricted(experiment, point, entries)
        if with_jacobian:
            prediction, block = jacobian_of(function, point[entries], rows, experiment.model, self.sweep)
            block = misfit.derivative(prediction, rows, block)
        else:
            prediction, part = gradient_of(function, point[entries], partial(_phi, rows, misfit))
            block = part[None, :]
        self._require_finite(experiment, prediction)
        self._require_finite_derivatives(experiment, rows, entries, block)
        return prediction, _widened(block, entries, len(point)), experiment.model.reports()

    def residual(self, t: np.ndarray) -> np.ndarray:
        """Residuals of the fitted rows at t, without derivatives."""
        with torch.no_grad():
            return self.misfit.residual(self.predict(torch.as_tensor(t)))[self.fitted].numpy()

    def predictions_at(self, t: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y (k,) and d y / d t (k, p) of the rows that a mask (n,) wants, in their order; the models keep their states."""
        point = torch.as_tensor(np.asarray(t, dtype=float))
        predictions, blocks = [], []
        parts = torch.as_tensor(wanted).split([len(e.observations) for e in self.experiments])
        with self.undisturbed():
            for experiment, mask in zip(self.experiments, parts):
                rows = torch.nonzero(mask).reshape(-1)
                entries = torch.as_tensor(self.parameters.entries_of(experiment.owner))
                if len(rows):
                    function = self._restricted(experiment, point, entries)
                    prediction, block = jacobian_of(function, point[entries], rows, experiment.model, self.sweep)
                    self._require_finite(experiment, prediction)
                    predictions.append(prediction[rows])
                    blocks.append(_widened(block, entries, len(point)))
        return torch.cat(predictions).numpy(), torch.cat(blocks).numpy()

    def arguments(self, experiment: Experiment, t: Tensor) -> dict[str, Tensor]:
        """What a model's `simulate` is given at t: its parameters in its units, fields filled, defaults added."""
        given = self.parameters.for_experiment(self.parameters.natural(t), experiment.owner)
        known = experiment.model.parameter_defaults()
        offsets = set(experiment.observations.offset)
        arguments = {name: v for name, v in given.items() if (name in known if known else name not in offsets)}
        for name, default in known.items():
            if default.size is not None and name in arguments and arguments[name].dim() == 0:
                arguments[name] = arguments[name].expand(default.size)
            elif name not in arguments and default.value is not None:
                arguments[name] = torch.tensor(default.value, dtype=torch.float64)
        return arguments

    def _predictions(self, experiment: Experiment, t: Tensor) -> Tensor:
        entries = self.parameters.entries_of(experiment.name)
        labels = self.parameters.entry_labels
        frame = tuple(labels[i] for i in entries)
        with visiting(experiment.name, t[entries], frame):
            y = experiment.model.simulate(self.arguments(experiment, t))
        if y.shape != experiment.observations.value.shape:
            raise BilevelError(
                f"experiment '{experiment.name}': the model returned predictions of shape {tuple(y.shape)}, "
                f"there are {len(experiment.observations)} observations"
            )
        if y.dtype != torch.float64:
            self.single_precision.add(experiment.name)
        given = self.parameters.for_experiment(self.parameters.natural(t), experiment.owner)
        for name in dict.fromkeys(n for n in experiment.observations.offset if n):
            mask = torch.tensor([o == name for o in experiment.observations.offset], dtype=torch.float64)
            y = y + mask * given[name]
        return y

    def _restricted(self, experiment: Experiment, point: Tensor, entries: Tensor) -> Callable[[Tensor], Tensor]:
        def function(part: Tensor) -> Tensor:
            return self._predictions(experiment, point.index_copy(0, entries, part))

        return function

    def _with_priors(
        self, point: Tensor, residuals: list[Tensor], blocks: list[Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        prior = self.prior_residual(point)
        residual = torch.cat([*residuals, prior])
        if blocks is None:
            return residual, None
        if len(prior):
            blocks = [*blocks, torch.func.jacrev(self.prior_residual)(point)]
        return residual, torch.cat(blocks)

    def _require_finite(self, experiment: Experiment, prediction: Tensor) -> None:
        bad = torch.nonzero(~torch.isfinite(prediction)).reshape(-1)
        if len(bad):
            source = experiment.observations.source_of(int(bad[0]))
            raise BilevelError(f"the prediction for {source} (experiment '{experiment.name}') is NaN or infinite")
        bad = torch.nonzero(experiment.observations.misfit.logarithmic & (prediction <= 0)).reshape(-1)
        if len(bad):
            source = experiment.observations.source_of(int(bad[0]))
            raise BilevelError(
                f"the prediction for {source} (experiment '{experiment.name}') is {float(prediction[bad[0]]):g}, "
                "which has no logarithm; bound the parameters so that it stays positive, or leave out logarithmic"
            )

    def _require_finite_derivatives(self, experiment: Experiment, rows: Tensor, entries: Tensor, block: Tensor) -> None:
        bad = torch.nonzero(~torch.isfinite(block))
        if len(bad):
            source = experiment.observations.source_of(int(rows[bad[0, 0]]))
            label = self.parameters.entry_labels[int(entries[bad[0, 1]])]
            raise BilevelError(
                f"the derivative of the prediction for {source} (experiment '{experiment.name}') with respect to {label} "
                "is NaN or infinite though the prediction is finite: a root or power at 0, 0 * infinity, or a branch of "
                "torch.where that overflows"
            )

    def _size(self, prediction: Tensor) -> float:
        """Norm of the fitted rows of w y or of w d, whichever is larger."""
        weighted = self.misfit.size(prediction)
        return float(weighted[:, self.fitted].norm(dim=1).max())


def _phi(rows: Tensor, misfit: Misfits, prediction: Tensor) -> Tensor:
    return (misfit.residual(prediction)[rows] ** 2).sum()


def _widened(block: Tensor, entries: Tensor, size: int) -> Tensor:
    return torch.zeros(len(block), size, dtype=torch.float64).index_copy(1, entries, block)


def _inner_work(reports: list[ModelReports]) -> dict:  # type: ignore[type-arg]
    counts = Counts()
    solves = [s for r in reports for s in r.solves]
    gradients = [g for r in reports for g in r.gradients]
    for solve in solves:
        counts.add(solve.counts)
    return {
        "counts": counts,
        "inner_solves": len(solves),
        "inner_iterations": sum(s.iterations for s in solves),
        "gradient_error": max((g.relative_error for g in gradients), default=math.nan),
    }
