"""Head losses of all links of a network as functions of their flows, at given parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.problem import Params
from physics.flow.water.arrays import Array, functions_of, in_numpy
from physics.flow.water.friction import FOOT, GRAVITY, Friction
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
        self.number = torch.arange(len(pumps))
        self.least = torch.tensor([SLOWEST * pump.design for pump in pumps], dtype=torch.float64)


class PumpLosses:
    """The curves at relative speeds, by the laws of similarity: lift = rest - decrement q^exponent."""

    def __init__(self, curves: PumpCurves, speed: Array) -> None:
        self.least, self.exponent, self.begin = curves.least, curves.exponent, curves.begin * speed
        self.rest = speed**2 * curves.rest
        self.decrement = curves.decrement * speed ** (2.0 - curves.exponent)
        self.number = curves.number
        single = len(self.begin) == 1
        self.only = (self.rest[0], self.decrement[0], self.exponent[0]) if single else None

    def loss(self, flow: Array) -> Array:
        """Minus the lift (pumps,) [m]."""
        here, rest, decrement, exponent = self._piece(flow)
        straight = decrement * exponent * self.least ** (exponent - 1.0) * (flow - here)
        return straight - (rest - decrement * here**exponent)

    def slope(self, flow: Array) -> Array:
        """d loss / d flow (pumps,) [s/m2]."""
        here, _, decrement, exponent = self._piece(flow)
        return decrement * exponent * here ** (exponent - 1.0)

    def _piece(self, flow: Array) -> tuple[Array, Array, Array, Array]:
        """The flow, or the least one that the curve is followed to, and the constants of the piece of the curve there."""
        here = functions_of(flow).maximum(flow, self.least)
        if self.only is not None:
            return here, *self.only
        piece = ((self.begin <= here).sum(0) - 1).clip(min=0)
        rest, decrement, exponent = (c[piece, self.number] for c in (self.rest, self.decrement, self.exponent))
        return here, rest, decrement, exponent


@dataclass(frozen=True, eq=False)
class Links:
    """What the losses of a network's links need beside parameters; `throttled`: valves whose setting is a loss coefficient."""

    friction: Friction
    length: Array
    diameter: Array
    open_minor: Array
    throttled: Array
    valve_minor: Array
    pumps: PumpCurves

    @staticmethod
    def of(network: WaterNetwork, statuses: list[LinkStatus]) -> Links:
        valves = network.valves
        throttled = [
            is_throttled(valve, s) for valve, s in zip(valves, statuses[len(statuses) - len(valves) :], strict=True)
        ]
        return Links(
            network.friction,
            column(network.pipes, "length"),
            column(network.pipes, "diameter"),
            column(valves, "minor"),
            torch.tensor(throttled, dtype=torch.bool),
            PER_SQUARED_FLOW / column(valves, "diameter") ** 4,
            PumpCurves(network.pumps),
        )

    def in_numpy(self) -> Links:
        return replace(in_numpy(self), pumps=in_numpy(self.pumps))

    def losses(self, params: Params) -> LinkLosses:
        return LinkLosses(self, params)


class LinkLosses:
    """The losses of all links that are open; what does not depend on flows is worked out once."""

    def __init__(self, links: Links, params: Params) -> None:
        pipes, pumps = len(links.length), len(links.pumps.least)
        self.pipe, self.pump, self.valve = slice(pipes), slice(pipes, pipes + pumps), slice(pipes + pumps, None)
        self.pipes = links.friction.at(links.length, links.diameter, params["roughness"])
        self.pumps = PumpLosses(links.pumps, params["speed"]) if pumps else None
        self.minor = PER_SQUARED_FLOW / links.diameter**4 * params["minor"]
        setting = functions_of(links.length).where(links.throttled, params["setting"], links.open_minor)
        self.valves = setting * links.valve_minor if len(links.throttled) else None

    def loss(self, flow: Array) -> Array:
        """The head (L,) [m] lost from first to second node, at any flow."""
        pipe = flow[self.pipe]
        lost = [self.pipes.loss(pipe) + self.minor * pipe * abs(pipe)]
        if self.pumps is not None:
            lost.append(self.pumps.loss(flow[self.pump]))
        if self.valves is not None:
            valve = flow[self.valve]
            lost.append(self.valves * valve * abs(valve))
        return functions_of(flow).concatenate(lost) + REST * flow

    def slope(self, flow: Array) -> Array:
        """d loss / d flow (L,) [s/m2]."""
        pipe = flow[self.pipe]
        slopes = [self.pipes.slope(pipe) + 2.0 * self.minor * abs(pipe)]
        if self.pumps is not None:
            slopes.append(self.pumps.slope(flow[self.pump]))
        if self.valves is not None:
            slopes.append(2.0 * self.valves * abs(flow[self.valve]))
        return functions_of(flow).concatenate(slopes) + REST


def is_throttled(link: Link, status: LinkStatus) -> bool:
    """Whether a link is a valve whose setting is a loss coefficient in force."""
    return isinstance(link, Valve) and link.kind is ValveKind.TCV and status is LinkStatus.ACTIVE
