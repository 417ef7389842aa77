"""Unrolled and equilibrium networks for inverse problems: each method a file, each network called as network(data)."""

from typing import TYPE_CHECKING

import bilevel

if TYPE_CHECKING:
    from bilevel.inversion.networks.alista import ALISTA, analytic_weight, coherence
    from bilevel.inversion.networks.canonical import canonical_form, require_same_map
    from bilevel.inversion.networks.denoiser import (
        ConvexDenoiser,
        Denoiser,
        DenoiserSchedule,
        ResidualCNN,
        train_denoiser,
    )
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
    from bilevel.inversion.networks.hyperlista import HyperLISTA, tune
    from bilevel.inversion.networks.lista import LISTA, LISTACP, StepThresholdISTA, TiLISTA
    from bilevel.inversion.networks.network import SupportSelection, UnrolledNetwork
    from bilevel.inversion.networks.neurally_augmented_alista import NeurallyAugmentedALISTA
    from bilevel.inversion.networks.plug_and_play import PnPADMM, PnPProximalGradient, UnrolledADMM
    from bilevel.inversion.networks.signals import SparseSignals, nmse_db
    from bilevel.inversion.networks.sparse_coding import ElasticNet, sparse_codes
    from bilevel.inversion.networks.training import LayerwiseSchedule, train
    from bilevel.inversion.networks.truncation import TruncationRate, depth_from_discount, measure_rate, truncated
    from bilevel.inversion.networks.weights import load_weights, save_weights

__all__, __getattr__, __dir__ = bilevel.lazy_names(__name__)
