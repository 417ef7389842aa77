"""The parameters that a pumping test may have, and which of them it has."""

from __future__ import annotations

from collections.abc import Mapping

from bilevel.calibrate.model import ParameterDefault

ALWAYS = ("hydraulic_conductivity", "specific_storage")
FURTHER = ("aquitard_resistance", "casing_radius", "specific_yield", "anisotropy")
"""Parameters of a numerical drawdown that only some tests have."""


def _positive(units: str, description: str) -> ParameterDefault:
    return ParameterDefault(units, lower=0.0, transform="log", description=description)


KNOWN = {
    "hydraulic_conductivity": _positive("m/d", "K of the aquifer"),
    "specific_storage": _positive("1/m", "Ss of the aquifer"),
    "aquitard_resistance": _positive("d", "c of the aquitard"),
    "specific_yield": ParameterDefault("", lower=0.0, upper=1.0, transform="log", description="Sy at the water table"),
    "anisotropy": ParameterDefault("", 1.0, lower=0.0, transform="log", description="vertical over horizontal K"),
    "casing_radius": _positive("m", "where the well's water rises"),
    "skin": ParameterDefault("", 0.0, lower=0.0, description="resistance at the well's wall"),
    "other_transmissivity": _positive("m2/d", "T of the aquifer that is not pumped"),
    "other_storativity": _positive("", "S of it"),
    "aquitard_storativity": ParameterDefault("", 0.0, lower=0.0, description="S' of the aquitard"),
}


def parameters_of(aquifer: str, *, stores: bool, partial: bool, closed_form: bool) -> Mapping[str, ParameterDefault]:
    """By the kind of aquifer; stores: the well's water rises and falls; partial: screens over a part of the height."""
    two, unconfined = aquifer == "two_aquifers", aquifer == "unconfined"
    taken = {
        **dict.fromkeys(ALWAYS, True),
        "aquitard_resistance": aquifer in ("leaky", "two_aquifers"),
        **dict.fromkeys(("other_transmissivity", "other_storativity", "aquitard_storativity"), two),
        "specific_yield": unconfined,
        "anisotropy": unconfined or partial,
        "casing_radius": stores,
        "skin": stores and closed_form,
    }
    return {name: KNOWN[name] for name, has in taken.items() if has}
