"""Unrolled and equilibrium networks for inverse problems: each method a file, each network called as network(data)."""

from bilevel.learned.alista import ALISTA, analytic_weight, coherence
from bilevel.learned.canonical import canonical_form, require_same_map
from bilevel.learned.denoiser import ConvexDenoiser, Denoiser, DenoiserSchedule, ResidualCNN, train_denoiser
from bilevel.learned.dictionary import (
    DictionarySchedule,
    SparseClassifier,
    fit_classifier,
    learn_task_driven,
    learn_unsupervised,
)
from bilevel.learned.equilibrium import Equilibrium, LayerMap
from bilevel.learned.group_lista import GroupLISTA
from bilevel.learned.guards import Certificate, certify, certify_network, clamp_steps, jacobian_norm
from bilevel.learned.hyperlista import HyperLISTA
from bilevel.learned.learned_step import LearnedStep
from bilevel.learned.lista import LISTA, LISTACP, StepThresholdISTA, TiLISTA
from bilevel.learned.network import SupportSelection, UnrolledNetwork
from bilevel.learned.plug_and_play import PnPADMM, PnPProximalGradient, UnrolledADMM
from bilevel.learned.signals import SparseSignals, nmse_db
from bilevel.learned.sparse_coding import ElasticNet, sparse_codes
from bilevel.learned.training import Schedule, train
from bilevel.learned.truncation import TruncationRate, depth_from_discount, measure_rate, truncated
from bilevel.learned.weights import load_weights, save_weights

__all__ = [
    "ALISTA",
    "LISTA",
    "LISTACP",
    "Certificate",
    "ConvexDenoiser",
    "Denoiser",
    "DenoiserSchedule",
    "DictionarySchedule",
    "ElasticNet",
    "Equilibrium",
    "GroupLISTA",
    "HyperLISTA",
    "LayerMap",
    "LearnedStep",
    "PnPADMM",
    "PnPProximalGradient",
    "ResidualCNN",
    "Schedule",
    "SparseClassifier",
    "SparseSignals",
    "StepThresholdISTA",
    "SupportSelection",
    "TiLISTA",
    "TruncationRate",
    "UnrolledADMM",
    "UnrolledNetwork",
    "analytic_weight",
    "canonical_form",
    "certify",
    "certify_network",
    "clamp_steps",
    "coherence",
    "depth_from_discount",
    "fit_classifier",
    "jacobian_norm",
    "learn_task_driven",
    "learn_unsupervised",
    "load_weights",
    "measure_rate",
    "nmse_db",
    "require_same_map",
    "save_weights",
    "sparse_codes",
    "train",
    "train_denoiser",
    "truncated",
]
