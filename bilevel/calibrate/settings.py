"""How to calibrate: the choices that a study's file and the command line offer. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Literal

from bilevel.report import chosen, require


class Method(Enum):
    """How phi is minimised; krylov: least squares for large fields, without a Jacobian."""

    LEAST_SQUARES = "least_squares"
    LBFGSB = "lbfgsb"
    KRYLOV = "krylov"


class Noise(Enum):
    """Whether the weights are known to be 1/sigma, or only relative to each other (then s^2 is estimated)."""

    ESTIMATED = "estimated"
    KNOWN = "known"


class Failures(Enum):
    """What becomes of a point at which a model failed twice.

    reject: it is no better than where one is, and a shorter step is taken. penalise: the readings of the experiment that
    failed count as missed ten times as far as at the last good point, the others as they are. drop: the fit goes on
    without that experiment.
    """

    REJECT = "reject"
    PENALISE = "penalise"
    DROP = "drop"


class Sweep(Enum):
    """Which derivatives to take: forward (jvp), adjoint (vjp), or whichever needs fewer sweeps."""

    AUTO = "auto"
    FORWARD = "forward"
    ADJOINT = "adjoint"


class WeightRule(Enum):
    """Weights made from a group's own values."""

    INVERSE_MEAN_ABSOLUTE = "inverse_mean_absolute"
    INVERSE_MAXIMUM_ABSOLUTE = "inverse_maximum_absolute"


class Loss(Enum):
    """What a residual of z standard deviations adds to phi: z^2, or less of it where z is large."""

    NORMAL = "normal"
    SOFT_L1 = "soft_l1"
    HUBER = "huber"
    STUDENT_T = "student_t"


class Transform(Enum):
    """none: t = v; log: t = ln v, for what is positive; logit: t = ln((v - lower) / (upper - v)), never at a bound."""

    NONE = "none"
    LOG = "log"
    LOGIT = "logit"


TransformName = Literal["none", "log", "logit"]


@dataclass(frozen=True)
class Settings:
    """How to calibrate.

    noptmax: limit of outer iterations; 0 = one run and its report, -1 = Jacobian and linear statistics at the start.
    tolerance: relative offset at which the outer loop has converged, by whatever method: what of the residuals
    parameters can still explain, against what they cannot; parameters are then that share of their std off the minimum.
    statistics: intervals and verdicts at the end. verify: check the Jacobian by finite differences, at the start, before
    the fit is paid for, and at the end (4 simulations each, 2 more for each parameter without effect), and whether a cold
    start leads to the same states at the end. memory: inner solves start from the states of earlier evaluations;
    memory_megabytes: what these may take. failures: what becomes of points at which a model failed twice.
    """

    method: Method = Method.LEAST_SQUARES
    noptmax: int = 100
    tolerance: float = 1e-6
    noise: Noise = Noise.ESTIMATED
    statistics: bool = True
    verify: bool = True
    memory: bool = True
    memory_megabytes: float = 256.0
    failures: Failures = Failures.REJECT

    def __post_init__(self) -> None:
        for name, choices in (("method", Method), ("noise", Noise), ("failures", Failures)):
            object.__setattr__(self, name, chosen(choices, getattr(self, name)))
        require(self.noptmax >= -1, f"noptmax is a number of iterations, 0 or -1; not {self.noptmax}")
        require(0 < self.tolerance < 1, f"tolerance is a relative offset between 0 and 1; not {self.tolerance}")
        require(self.memory_megabytes > 0, f"memory_megabytes must be positive; not {self.memory_megabytes}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        names = {"method": self.method.value, "noise": self.noise.value, "failures": self.failures.value}
        return {**asdict(self), **names}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Settings:
        """The inverse of `as_dict`."""
        return Settings(**values)


class StartSampling(Enum):
    """How starts fill the space within the bounds of the transformed parameters; cma_es: from where a search without
    derivatives came lowest.
    """

    LATIN_HYPERCUBE = "latin_hypercube"
    SOBOL = "sobol"
    CMA_ES = "cma_es"


@dataclass(frozen=True)
class Starts:
    """How many starts, the given one among them, and how the others are drawn."""

    count: int
    sampling: StartSampling = StartSampling.LATIN_HYPERCUBE
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling", chosen(StartSampling, self.sampling))
        require(self.count >= 1, f"the number of starts is at least 1; not {self.count}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {**asdict(self), "sampling": self.sampling.value}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Starts:
        """The inverse of `as_dict`."""
        return Starts(**values)


class EnsembleMethod(Enum):
    """rml: randomised maximum likelihood; smoother: ES-MDA, an iterative ensemble smoother; mcmc: Markov chains."""

    RML = "rml"
    SMOOTHER = "smoother"
    MCMC = "mcmc"


@dataclass(frozen=True)
class Ensemble:
    """How many samples of the parameters, how they are made, and the seed of their errors."""

    count: int
    method: EnsembleMethod = EnsembleMethod.RML
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", chosen(EnsembleMethod, self.method))
        require(self.count >= 2, f"an ensemble has at least 2 samples; not {self.count}")


class StrengthRule(Enum):
    """discrepancy: phi of the readings is a target; gcv: generalised cross-validation; l_curve: the corner of the L-curve."""

    DISCREPANCY = "discrepancy"
    GCV = "gcv"
    L_CURVE = "l_curve"


@dataclass(frozen=True)
class Strength:
    """How the strength of the models' own priors on fields is chosen; target: phi for each reading, of the discrepancy principle."""

    rule: StrengthRule
    target: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", chosen(StrengthRule, self.rule))
        require(self.target > 0, f"the target of a misfit must be positive; not {self.target}")


@dataclass(frozen=True)
class Stage:
    """What one stage frees and fits: labels of parameters, labels of groups; () = all that the study frees or fits."""

    name: str
    parameters: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
