"""Hardening in several terms, as two Voce terms of different rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.inelastic.hardening import YIELD, Hardening
from physics.constitutive.inelastic.law import Values
from physics.local.parameters import LawParameters


class HardeningSum(Hardening):
    """One yield stress, and what every term adds to it; parameters of the k-th term end in _k."""

    def __init__(self, terms: Sequence[Hardening]) -> None:
        if not terms:
            raise InputError("a sum of hardening terms needs one at least")
        self.terms = tuple(terms)
        shared = {p.name for p in YIELD}
        own = [
            replace(p, name=f"{p.name}_{k}")
            for k, t in enumerate(terms, 1)
            for p in t.parameters
            if p.name not in shared
        ]
        self.parameters = YIELD + LawParameters(*own)

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        total = params["yield_stress"] + torch.zeros_like(plastic_strain)
        for term, own in self._each(params):
            total = total + term.flow_stress(plastic_strain, own) - params["yield_stress"]
        return total

    def slope(self, plastic_strain: Tensor, params: Values) -> Tensor:
        total = torch.zeros_like(plastic_strain)
        for term, own in self._each(params):
            total = total + term.slope(plastic_strain, own)
        return total

    def _each(self, params: Values) -> Iterator[tuple[Hardening, Values]]:
        """Every term with its parameters under their own names."""
        for k, term in enumerate(self.terms, 1):
            yield term, {p.name: params.get(f"{p.name}_{k}", params["yield_stress"]) for p in term.parameters}
