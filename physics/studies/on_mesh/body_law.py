"""The law of a body by its name, or one for each zone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.calibrate.model import ConfigError
from bilevel.report import InputError
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.inelastic.hardening import Hardening
from physics.constitutive.inelastic.law import InelasticLaw
from physics.constitutive.inelastic.zoned import ElasticIncrements, ZonedLaw
from physics.constitutive.law import Law
from physics.constitutive.registry import find_law, make_law
from physics.discretisation import Mesh
from physics.local.parameters import LawParameters
from physics.studies.on_mesh.zones import Zones


@dataclass(frozen=True)
class BodyLaw:
    """A law, the parameters of it that a study may have, and what else it needs: {"zone": (cells,)} of several laws."""

    law: ElasticLaw | InelasticLaw
    parameters: LawParameters
    constants: dict[str, Tensor] = field(default_factory=dict)


def body_law(name: str, hardening: str | None, terms: int | None) -> BodyLaw:
    """The law called `name`, with a hardening law and a number of terms where it has any; ConfigError."""
    law = _made(name, _hardening(hardening), terms, ("law",))
    return BodyLaw(law, law.parameters)


def zoned_law(names: Mapping[str, str], hardening: str | None, mesh: Mesh) -> BodyLaw:
    """One law for each zone, of any kind; linear elastic ones are in increments, since ground begins under stress. ConfigError."""
    zones, hard, laws = Zones.of(mesh, list(names), ("laws",)), _hardening(hardening), []
    takes = {
        zone: "hardening" in inspect.signature(_found(name, ("laws", zone))).parameters for zone, name in names.items()
    }
    if hard is not None and not any(takes.values()):
        raise ConfigError(("hardening",), "none of the laws has one; leave it out")
    for zone, name in names.items():
        law = _made(name, hard if takes[zone] else None, None, ("laws", zone))
        laws.append(ElasticIncrements() if isinstance(law, LinearElastic) else law)
    try:
        together = ZonedLaw(laws)
    except InputError as error:
        raise ConfigError(("laws",), str(error)) from None
    return BodyLaw(together, together.material, {"zone": zones.of_cell.to(torch.float64)})


def _hardening(name: str | None) -> Hardening | None:
    try:
        return None if name is None else make_law(name, Hardening)
    except InputError as error:
        raise ConfigError(("hardening",), str(error)) from None


def _found(name: str, key: tuple[str, ...]) -> type[Law]:
    try:
        return find_law(name, Law)
    except InputError as error:
        raise ConfigError(key, str(error)) from None


def _made(name: str, hardening: Hardening | None, terms: int | None, key: tuple[str, ...]) -> ElasticLaw | InelasticLaw:
    try:
        law = make_law(name, Law, hardening=hardening, terms=terms)
    except InputError as error:
        raise ConfigError(key, str(error)) from None
    if not isinstance(law, (ElasticLaw, InelasticLaw)):
        raise ConfigError(key, f"'{name}' is no law of a solid")
    return law
