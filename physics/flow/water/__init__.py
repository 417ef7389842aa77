"""Water supply networks: pipes, pumps and valves under pressure, read from EPANET's files or from tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.flow.water.epanet import read_epanet
    from physics.flow.water.network import Pipe, Pump, Valve, WaterNetwork
    from physics.flow.water.pipe_flow import PipeFlow
    from physics.flow.water.tables import read_tables

__all__, __getattr__, __dir__ = lazy_names(__name__)
