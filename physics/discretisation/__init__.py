"""Meshes and graphs: cells, operators, constraints, rigid-body modes and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.discretisation.built_in import box, from_arrays, rectangle
    from physics.discretisation.constraints import Affine, Dirichlet, Tie, periodic
    from physics.discretisation.graph import Graph
    from physics.discretisation.mesh import Mesh
    from physics.discretisation.read import read_mesh
    from physics.discretisation.reference_cells import Shape
    from physics.discretisation.write import write_vtu

__all__, __getattr__, __dir__ = lazy_names(__name__)
