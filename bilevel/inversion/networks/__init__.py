"""Unrolled and equilibrium networks for inverse problems: each method a file, each network called as network(data)."""

from bilevel.inversion.networks.alista import ALISTA, analytic_weight, coherence
from bilevel.inversion.networks.canonical import canonical_form, require_same_map
from bilevel.inversion.networks.denoiser import ConvexDenoiser, Denoiser, DenoiserSchedule, ResidualCNN, train_denoiser
from bilevel.inversion.networks.dictionary import (
    DictionarySchedule,
    SparseClassifier,
    fit_classifier,
    learn_task_driven,
    learn_unsupervised,
)
from bilevel.inversion.networks.equilibrium import Equilibrium, LayerMap
from bilevel.inversion.networks.group_lista import GroupLISTA
from bilevel.inversion.networks.guards import Certificate, certify, certify_network, clamp_steps, jacobian_norm
from bilevel.inversion.networks.hyperlista import HyperLISTA
from bilevel.inversion.networks.learned_step import LearnedStep
from bilevel.inversion.networks.lista import LISTA, LISTACP, StepThresholdISTA, TiLISTA
from bilevel.inversion.networks.network import SupportSelection, UnrolledNetwork
from bilevel.inversion.networks.plug_and_play import PnPADMM, PnPProximalGradient, UnrolledADMM
from bilevel.inversion.networks.signals import SparseSignals, nmse_db
from bilevel.inversion.networks.sparse_coding import ElasticNet, sparse_codes
from bilevel.inversion.networks.training import Schedule, train
from bilevel.inversion.networks.truncation import TruncationRate, depth_from_discount, measure_rate, truncated
from bilevel.inversion.networks.weights import load_weights, save_weights

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
