"""How a study's body comes to its equilibrium: from its own start, from a learned guess, or along its loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from bilevel.acceleration.learned_guess import guess_solver
from bilevel.acceleration.study_family import GuessableSolve
from bilevel.acceleration.weights_file import Weights
from bilevel.calibrate.model import ConfigError
from bilevel.problem import Params
from bilevel.report import InputError, Solution
from bilevel.solvers import LoadStepping, Newton
from bilevel.solvers.solver import Solver
from bilevel.torch_internals import pytree
from physics.solids import ElasticSolid, Solid

SolverName: TypeAlias = Literal["newton", "learned"]

WEIGHTS = "guess.pt"
"""Beside the study."""


@dataclass(frozen=True, eq=False)
class BodyEquilibria:
    """A body under one load. follow_path: each solve goes along the loads from none; ConfigError where a choice does not fit."""

    solid: Solid
    law: str
    folder: Path
    solver: SolverName
    follow_path: bool

    name: str = field(init=False)
    version: int = field(init=False, default=1)
    _chosen: Solver | InputError | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.law} in {self.solid.kinematics.value}")
        # Read here and not on first use, which may be inside a torch.func transform that the weights must not outlive.
        object.__setattr__(self, "_chosen", self._found())
        if self.solver == "newton":
            return
        if self.follow_path:
            raise ConfigError(("follow_path",), "a solve along the loads takes no guess; leave `solver: learned` out")
        try:
            self.body.by_cells  # noqa: B018 - says whether there is such a form
        except InputError as error:
            raise ConfigError(("solver",), str(error)) from None

    @property
    def body(self) -> ElasticSolid:
        """The body; InputError where it is inelastic."""
        if not isinstance(self.solid, ElasticSolid):
            raise InputError("an inelastic body follows its loads; guesses are for elastic ones")
        return self.solid

    def at(self, params: Params) -> GuessableSolve:
        """What is solved."""
        return GuessableSolve(self.body, params, self.body.start(params), along_loads)

    def solve(self, params: Params) -> Solution:
        """The equilibrium; InputError where weights are missing."""
        if isinstance(self._chosen, InputError):
            raise self._chosen
        return self.solid.solve(params, solver=self._chosen)

    def _found(self) -> Solver | InputError | None:
        """The solver, or what is wrong with the weights, which the command that trains them must not stumble over."""
        if self.follow_path:
            return LoadStepping(along_loads, Newton(max_iterations=25), predict=True, from_rest=True, insist=True)
        if self.solver == "newton":
            return None
        file = self.folder / WEIGHTS
        if not file.exists():
            return InputError(
                f"`solver: learned` needs weights in {file}; make them by `bilevel train-steps` with this study"
            )
        try:
            return guess_solver(Weights.load(file, self).networks)
        except InputError as error:
            return error


def along_loads(params: Params, fraction: float) -> Params:
    """The parameters at a fraction of all loads and prescribed displacements."""
    return {
        name: value if name == "material" else pytree.tree_map(lambda leaf: fraction * leaf, value)
        for name, value in params.items()
    }
