"""First guesses that networks learn on families of problems, and steps that anything may propose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from bilevel.acceleration.family import Family, Instance
    from bilevel.acceleration.learned_guess import LearnedGuess, guess_solver
    from bilevel.acceleration.learned_step import LearnedStep
    from bilevel.acceleration.weights_file import Weights, shipped

__all__, __getattr__, __dir__ = lazy_names(__name__)
