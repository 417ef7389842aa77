"""What all sections of study.yml have in common."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from bilevel.calibrate.study.documented import Documented


class Section(Documented):
    """Texts below a key say what it means; the site prints them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


def is_text(given: Any) -> bool:
    """Whether a bare scalar may stand for a name: numbers are texts as they are written, true and false are not."""
    return isinstance(given, str) or is_number(given)


def is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)
