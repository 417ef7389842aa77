"""Head losses of all links of a network as functions of their flows, at given parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilevel.problem import Params
from physics.flow.water.friction import FOOT, GRAVITY
from physics.flow.water.network import Link, LinkStatus, Pump, Valve, ValveKind, WaterNetwork

REST = 1e-7 / FOOT**2
"""Head per flow at rest, s/m2, where losses alone have no slope and flows around loops would be undetermined."""

SLOWEST = 1e-6
"""A pump's curve goes on straight below this share of its typical flow: some curves are vertical at rest."""

PER_SQUARED_FLOW = 8.0 / (GRAVITY * np.pi**2)
"""Times K / d^4 it is the loss K v^2 / 2g over q^2."""


def column(links: Sequence[Link], name: str) -> Tensor:
    """An attribute of links as a tensor."""
    return torch.tensor([getattr(link, name) for link in links], dtype=torch.float64)


class PumpCurves:
    """The curves of all pumps, piece by piece (pieces, pumps); missing pieces begin at infinite flow."""

    def __init__(self, pumps: Sequence[Pump]) -> None:
        most = max((len(pump.curve) for pump in pumps), default=1)
        pieces = torch.zeros((4, most, len(pumps)), dtype=torch.float64)
        pieces[0] = torch.inf
        for k, pump in enumerate(pumps):
            pieces[:, : len(pump.curve), k] = torch.tensor(pump.curve, dtype=torch.float64).mT
        self.begin, self.rest, self.decrement, self.exponent = pieces.unbind()
        self.least = torch.tensor([SLOWEST * pump.design for pump in pumps], dtype=torch.float64)


class PumpLosses:
    """The curves at relative speeds, by the laws of similarity: lift = rest - decrement q^exponent."""

    def __init__(self, curves: PumpCurves, speed: Tensor) -> None:
        self.least, self.exponent, self.begin = curves.least, curves.exponent, curves.begin * speed
        self.rest = speed.square() * curves.rest
        self.decrement = curves.decrement * speed ** (2.0 - curves.exponent)
        single = len(self.begin) == 1
        self.only = (self.rest[0], self.decrement[0], self.exponent[0]) if single else None

    def loss(self, flow: Tensor) -> Tensor:
        """Minus the lift (pumps,) [m]."""
        here, rest, decrement, exponent = self._piece(flow)
        straight = decrement * exponent * self.least ** (exponent - 1.0) * (flow - here)
        return straight - (rest - decrement * here**exponent)

    def slope(self, flow: Tensor) -> Tensor:
        """d loss / d flow (pumps,) [s/m2]."""
        here, _, decrement, exponent = self._piece(flow)
        return decrement * exponent * here ** (exponent - 1.0)

    def _piece(self, flow: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The flow, or the least one that the curve is followed to, and the constants of the piece of the curve there."""
        here = torch.maximum(flow, self.least)
        if self.only is not None:
            return here, *self.only
        piece = ((self.begin <= here).sum(0, keepdim=True) - 1).clamp(min=0)
        rest, decrement, exponent = (c.gather(0, piece)[0] for c in (self.rest, self.decrement, self.exponent))
        return here, rest, decrement, exponent


@dataclass(frozen=True, eq=False)
class Links:
    """What the losses of a network's links need beside parameters; `throttled`: valves whose setting is a loss coefficient."""

    network: WaterNetwork
    length: Tensor
    diameter: Tensor
    open_minor: Tensor
    throttled: Tensor
    valve_minor: Tensor
    pumps: PumpCurves

    @staticmethod
    def of(network: WaterNetwork, statuses: list[LinkStatus]) -> Links:
        valves = network.valves
        throttled = [
            is_throttled(valve, s) for valve, s in zip(valves, statuses[len(statuses) - len(valves) :], strict=True)
        ]
        return Links(
            network,
            column(network.pipes, "length"),
            column(network.pipes, "diameter"),
            column(valves, "minor"),
            torch.tensor(throttled, dtype=torch.bool),
            PER_SQUARED_FLOW / column(valves, "diameter") ** 4,
            PumpCurves(network.pumps),
        )

    def losses(self, params: Params) -> LinkLosses:
        return LinkLosses(self, params)


class LinkLosses:
    """The losses of all links that are open; what does not depend on flows is worked out once."""

    def __init__(self, links: Links, params: Params) -> None:
        network = links.network
        self.counts = [len(network.pipes), len(network.pumps), len(network.valves)]
        self.pipes = network.friction.at(links.length, links.diameter, params["roughness"])
        self.minor = PER_SQUARED_FLOW / links.diameter**4 * params["minor"]
        self.pumps = PumpLosses(links.pumps, params["speed"])
        setting = torch.where(links.throttled, params["setting"], links.open_minor)
        self.valves = setting * links.valve_minor

    def loss(self, flow: Tensor) -> Tensor:
        """The head (L,) [m] lost from first to second node, at any flow."""
        pipe, pump, valve = flow.split(self.counts)
        lost = [self.pipes.loss(pipe) + self.minor * pipe * pipe.abs()]
        if len(pump):
            lost.append(self.pumps.loss(pump))
        if len(valve):
            lost.append(self.valves * valve * valve.abs())
        return torch.cat(lost) + REST * flow

    def slope(self, flow: Tensor) -> Tensor:
        """d loss / d flow (L,) [s/m2], as numbers."""
        pipe, pump, valve = flow.split(self.counts)
        slopes = [self.pipes.slope(pipe) + 2.0 * self.minor * pipe.abs()]
        if len(pump):
            slopes.append(self.pumps.slope(pump))
        if len(valve):
            slopes.append(2.0 * self.valves * valve.abs())
        return torch.cat(slopes) + REST


def is_throttled(link: Link, status: LinkStatus) -> bool:
    """Whether a link is a valve whose setting is a loss coefficient in force."""
    return isinstance(link, Valve) and link.kind is ValveKind.TCV and status is LinkStatus.ACTIVE
