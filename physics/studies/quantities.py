"""Quantities in a study's keys: a number and its units, read in the model's own."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError


def require_units(table: ObservationTable, row: int, units: str) -> None:
    """Raise InputError, with the row, where a reading is not in units of that dimension."""
    given, wanted = table.units_of(table.group[row]).name, parse_unit(units)
    if given == "" and any(wanted.dimension):
        raise InputError(
            f"{table.source_of(row)}: units are missing; a value of {units} is expected, say what the file has"
        )
    try:
        parse_unit(given).to(wanted)
    except InputError as error:
        raise InputError(f"{table.source_of(row)}: {error}") from None


def _quantity(units: str) -> BeforeValidator:
    """Reads "788 m3/d" as a number in `units`; a number alone is refused."""

    def read(text: Any) -> float:
        number, _, unit = str(text).strip().partition(" ")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"expected a number and its units, such as '1 {units}', got '{text}'") from None
        if not unit:
            raise InputError(f"'{text}' has no units; write '{text} {units}' if that is what is meant")
        return float(parse_unit(unit).to(parse_unit(units))(value))

    return BeforeValidator(read)


Length: TypeAlias = Annotated[float, _quantity("m")]
Days: TypeAlias = Annotated[float, _quantity("d")]
Seconds: TypeAlias = Annotated[float, _quantity("s")]
Discharge: TypeAlias = Annotated[float, _quantity("m3/d")]
