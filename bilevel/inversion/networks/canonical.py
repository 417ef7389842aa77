"""Canonical form: of all the weights that give the same map, the ones with unit-norm rows.

The soft threshold is positively homogeneous, soft(a v, a t) = a soft(v, t) for a > 0. So hidden components can be
rescaled, x_k' = S_k x_k, if rows, thresholds and the next layer's columns are rescaled along, and nothing changes outside.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.inversion.networks.lista import LISTA, LISTACP, TiLISTA
from bilevel.report import BilevelError, InputError


def as_lista(network: LISTACP) -> LISTA:
    """The untied LISTA with the same map: B_k = W_k^T, S_k = I - W_k^T A. Support selection has no such form."""
    if network.selection.maximum * network.selection.rate > 0:
        raise InputError(
            "support selection ranks magnitudes across components, so its rows cannot be rescaled one by one"
        )
    matrix = network.operator.matrix()
    found = LISTA(network.operator, network.depth, tied=False)
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    with torch.no_grad():
        for k, weight in enumerate(network.weights):
            found.encode[k].copy_(weight.mT)
            found.repeat[k].copy_(identity - weight.mT @ matrix)
            found.thresholds[k].copy_(network.thresholds[k])
    return found


def canonical_form(network: LISTA | LISTACP) -> LISTA:
    """A copy of an untied LISTA (or LISTA-CP, as one) in which every hidden layer's rows of B_k have norm one; one threshold a component.

    The last layer keeps its rows, since its output is the answer. Rows that are zero are left as they are.
    """
    if isinstance(network, LISTACP):
        network = as_lista(network)
    if not isinstance(network, LISTA):
        raise InputError(f"a {type(network).__name__} has no rows to normalise; a TiLISTA has `canonical_scale`")
    if network.tied:
        raise InputError("a tied LISTA shares its rows between hidden layers and the last; untie it first (`untied`)")
    found = copy.deepcopy(network)
    encode, repeat = found.encode, found.repeat
    before = torch.ones_like(encode[0][:, 0])
    with torch.no_grad():
        for k in range(found.depth):
            norm = torch.linalg.vector_norm(encode[k], dim=1)
            scale = torch.where(norm > 0, 1 / norm.clamp_min(torch.finfo(norm.dtype).tiny), 1.0)
            scale = scale if k < found.depth - 1 else torch.ones_like(scale)
            encode[k].mul_(scale[:, None])
            repeat[k].mul_(scale[:, None]).div_(before[None, :])
            found.thresholds[k] = Parameter(found.thresholds[k] + scale.log())
            before = scale
    return found


def untied(network: LISTA) -> LISTA:
    """The untied LISTA with the same map as a tied one."""
    if not network.tied:
        return copy.deepcopy(network)
    found = LISTA(network.operator, network.depth, tied=False)
    with torch.no_grad():
        for k in range(network.depth):
            found.encode[k].copy_(network.encode[0])
            found.repeat[k].copy_(network.repeat[0])
            found.thresholds[k].copy_(network.thresholds[k])
    return found


def canonical_scale(network: TiLISTA) -> TiLISTA:
    """A copy of a TiLISTA with mean w_i . a_i = 1: only step_k W is determined, so the scale is moved into the steps."""
    found = copy.deepcopy(network)
    with torch.no_grad():
        scale = (found.weight * found.operator.matrix()).sum(0).mean()
        if float(scale.abs()) < 1e-12:
            raise InputError("the weight is orthogonal to the operator on average; its scale cannot be normalised")
        found.weight.div_(scale)
        for step in found.steps:
            step.mul_(scale)
    return found


def require_same_map(before: torch.nn.Module, after: torch.nn.Module, y: Tensor, tolerance: float = 1e-9) -> float:
    """The relative difference of both networks' answers to y; raises BilevelError above `tolerance`."""
    with torch.no_grad():
        a, b = before(y), after(y)
    difference = float((a - b).norm() / a.norm().clamp_min(torch.finfo(a.dtype).tiny))
    if not difference <= tolerance:
        raise BilevelError(f"the canonical form changed the map by {difference:.2g} relative, more than {tolerance:g}")
    return difference
