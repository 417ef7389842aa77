"""The outer loop: parameters, observations, misfit, optimisers, statistics, checkpoints and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from bilevel.calibrate.experiment import Experiment
    from bilevel.calibrate.field_prior import FieldPrior
    from bilevel.calibrate.fit.executors import Workers
    from bilevel.calibrate.fit.multistart import multistart
    from bilevel.calibrate.fit.run import calibrate
    from bilevel.calibrate.fit.stages import staged
    from bilevel.calibrate.fit.start_outcomes import StartOutcome, starts_verdict
    from bilevel.calibrate.fit.strength import StrengthResult, choose_strength
    from bilevel.calibrate.function_problem import problem_from_function
    from bilevel.calibrate.joint_prior import JointPrior
    from bilevel.calibrate.misfit import Censored, GroupNoise
    from bilevel.calibrate.model import ConfigError, Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
    from bilevel.calibrate.observations import ObservationTable
    from bilevel.calibrate.parameter import Parameter
    from bilevel.calibrate.pest.control_file import PestCase, read_pst, write_pst
    from bilevel.calibrate.pest.matrices import read_jcb, write_jcb
    from bilevel.calibrate.problem import CalibrationProblem
    from bilevel.calibrate.result import CalibrationResult
    from bilevel.calibrate.settings import (
        Ensemble,
        EnsembleMethod,
        Loss,
        Method,
        Noise,
        Settings,
        Stage,
        Starts,
        StartSampling,
        Strength,
        StrengthRule,
        Transform,
    )
    from bilevel.calibrate.statistics.ensemble import EnsembleResult, ensemble
    from bilevel.calibrate.statistics.profile import Profile, profiles
    from bilevel.calibrate.study.loading import load_study
    from bilevel.calibrate.study.registry import register_model, works_in
    from bilevel.calibrate.study.session import Session
    from bilevel.calibrate.study.study import Study

__all__, __getattr__, __dir__ = lazy_names(__name__)
