"""A scalar field in time: from its start through all steps, with what it stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.flow.darcy import Diffusion
from physics.flow.linear_march import LinearMarch
from physics.flow.linear_system import LinearSystem
from physics.flow.time_stepping import SDIRK2
from physics.flow.time_steps import TimeSteps
from physics.studies.on_mesh.drives import Drive, driven


class FieldHistory:
    """The march of a field under its drives."""

    def __init__(self, flow: Diffusion, system: LinearSystem, drives: Sequence[Drive], steps: TimeSteps) -> None:
        self.flow, self.system, self.drives, self.steps = flow, system, drives, steps
        self.constant = [drive for drive in drives if not drive.varies]
        # As NumPy's arrays: inside torch.func's transforms no tensor turns into them, as interpolation needs.
        self.stage_times = steps.stage_times(SDIRK2.nodes)
        self.last_stages = torch.from_numpy(steps.stage_lengths(SDIRK2.diagonal, SDIRK2.nodes)[:, -1:])
        self.march = LinearMarch(*system.places, flow.constraints.matrix, steps, SDIRK2)
        names = [drive.entry[1] for drive in drives if len(drive.entry) == 2]
        self.indicators = {name: self._indicator(name, names) for name in names}

    def _indicator(self, name: str, names: Sequence[str]) -> Tensor:
        """What a value of one on a boundary adds to the field (nodes,)."""
        values = {other: float(other == name) for other in names}
        return self.flow.constraints.expand(self.flow.start(), values)[:, 0]

    def __call__(
        self, material: Mapping[str, Any], first: Tensor, parameters: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Params]:
        """Fields and their rates (steps + 1, nodes), from the first field (nodes,), and the parameters at these times."""
        system, constraints = self.system, self.flow.constraints
        now = driven(self.drives, self.stage_times, parameters)
        fixed = {**material, **driven(self.constant, None, parameters)}
        held = torch.zeros(*self.stage_times.shape, system.nodes, dtype=torch.float64)
        for name, values in now.get("boundary", {}).items():
            held = held + values.unsqueeze(-1) * self.indicators[name]
        load = system.load(now).expand(*self.stage_times.shape, -1)[:, 1:]
        start = first[constraints.free]
        matrices = system.stiffness({**now, **fixed}), system.capacity(fixed)
        heads, anchors = self.march(*matrices, load, held, start)
        begin = (constraints.extend(start)[:, 0] + held[0, 0]).unsqueeze(0)
        rates = (heads[:, -1] - anchors[:, -1]) / self.last_stages
        at_ends = {**driven(self.drives, self.steps.times, parameters), **fixed}
        return torch.cat((begin, heads[:, -1])), torch.cat((torch.zeros_like(begin), rates)), at_ends
