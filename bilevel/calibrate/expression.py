"""Formulas that a study writes as text: parsed once, nothing but arithmetic, with dimensions, differentiated by torch.

Numbers are dimensionless and quantities are in SI inside, so that "2 * shear * (1 + nu)" is right whatever units its
parts are written in, and a sum of a length and a time is refused.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from bilevel.calibrate.study.unit_table import NONE, Dimension
from bilevel.calibrate.study.units import Unit, describe
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

LONGEST = 2000
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp, "log": torch.log, "log10": torch.log10, "sqrt": torch.sqrt, "abs": torch.abs,
    "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "tanh": torch.tanh, "atan": torch.atan,
}  # fmt: skip
_CONSTANTS = {"pi": math.pi}
_SIGNS: dict[type[ast.operator], tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.Pow: ("**", operator.pow),
}


@dataclass(frozen=True)
class Dimensional:
    """A value in SI units, and its dimension."""

    value: Tensor
    dimension: Dimension = NONE


class Expression:
    """A formula of names: numbers, + - * / **, brackets, and exp, log, log10, sqrt, abs, sin, cos, tan, tanh, atan, pi.

    `k[sand]` and `k[0]` are entries of a field. Raises InputError for anything else.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            if len(text) > LONGEST:
                raise ValueError(f"it is longer than {LONGEST} characters")
            self._tree = ast.parse(text.strip(), mode="eval").body
            self.names = tuple(dict.fromkeys(_names(self._tree)))
        except SyntaxError as error:
            raise self._error(f"it cannot be read: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._error(str(error) or "it is nested too deeply") from None

    def __call__(self, known: Mapping[str, Dimensional]) -> Dimensional:
        """The value where the names stand for those quantities; InputError where dimensions do not go together."""
        return self._value(self._tree, known)

    def _value(self, node: ast.expr, known: Mapping[str, Dimensional]) -> Dimensional:
        if isinstance(node, ast.Constant):
            return Dimensional(torch.tensor(float(node.value), dtype=torch.float64))  # type: ignore[arg-type]
        if isinstance(node, (ast.Name, ast.Subscript)):
            return self._named(_name(node), known)
        if isinstance(node, ast.UnaryOp):
            inner = self._value(node.operand, known)
            return Dimensional(-inner.value, inner.dimension) if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp):
            return self._joined(node, self._value(node.left, known), self._value(node.right, known))
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        return self._applied(node.func.id, self._value(node.args[0], known))

    def _named(self, name: str, known: Mapping[str, Dimensional]) -> Dimensional:
        if name in known:
            return known[name]
        if name in _CONSTANTS:
            return Dimensional(torch.tensor(_CONSTANTS[name], dtype=torch.float64))
        raise self._error(f"'{name}' is not known{hint(name, known)}")

    def _joined(self, node: ast.BinOp, left: Dimensional, right: Dimensional) -> Dimensional:
        sign, function = _SIGNS[type(node.op)]
        value = function(left.value, right.value)
        if sign in "+-":
            if left.dimension != right.dimension:
                raise self._error(
                    f"'{ast.unparse(node)}' has {_described(left)} {sign} {_described(right)}; a number with a unit is a "
                    "parameter of its own, with fixed: true"
                )
            return Dimensional(value, left.dimension)
        if sign == "**":
            return Dimensional(value, self._power(node, left, right))
        power = 1 if sign == "*" else -1
        return Dimensional(value, tuple(a + power * b for a, b in zip(left.dimension, right.dimension)))

    def _power(self, node: ast.BinOp, base: Dimensional, exponent: Dimensional) -> Dimension:
        if any(exponent.dimension):
            raise self._error(f"the exponent of '{ast.unparse(node)}' is no pure number")
        if not any(base.dimension):
            return NONE
        if any(True for _ in _names(node.right)):
            raise self._error(f"'{ast.unparse(node)}': what has a unit takes a number as its exponent, no parameter")
        return tuple(k * Fraction(float(exponent.value)).limit_denominator(1000) for k in base.dimension)

    def _applied(self, name: str, inner: Dimensional) -> Dimensional:
        if name == "sqrt":
            return Dimensional(inner.value.sqrt(), tuple(k / 2 for k in inner.dimension))
        if name != "abs" and any(inner.dimension):
            raise self._error(f"{name}(...) takes a pure number, not {_described(inner)}")
        return Dimensional(_FUNCTIONS[name](inner.value), inner.dimension)

    def _error(self, what: str) -> InputError:
        shown = self.text if len(self.text) <= 100 else self.text[:97] + "..."
        return InputError(f"the expression '{shown}': {what}")


def _described(quantity: Dimensional) -> str:
    return "a pure number" if not any(quantity.dimension) else describe(Unit("", 1.0, quantity.dimension))


def _names(node: ast.expr) -> Iterator[str]:
    """The names in a formula; ValueError, in a sentence, for what is no arithmetic."""
    if isinstance(node, (ast.Name, ast.Subscript)):
        if (name := _name(node)) not in _CONSTANTS:
            yield name
    elif isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        yield from _names(node.left)
        yield from _names(node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        yield from _names(node.operand)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in _FUNCTIONS or len(node.args) != 1 or node.keywords:
            raise ValueError(
                f"'{ast.unparse(node)}' is not one of the functions {', '.join(_FUNCTIONS)} of one argument"
            )
        yield from _names(node.args[0])
    elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(node.value) < 1e300):  # type: ignore[arg-type]
        raise ValueError(
            f"'{ast.unparse(node)}' is not understood; it may have numbers, names, + - * / ** and functions"
        )


def _name(node: ast.Name | ast.Subscript) -> str:
    """ "k", "k[sand]" or "k[0]"."""
    if isinstance(node, ast.Name):
        return node.id
    entry = node.slice
    if isinstance(node.value, ast.Name) and isinstance(entry, ast.Name):
        return f"{node.value.id}[{entry.id}]"
    if isinstance(node.value, ast.Name) and isinstance(entry, ast.Constant) and type(entry.value) is int:
        return f"{node.value.id}[{entry.value}]"
    raise ValueError(f"'{ast.unparse(node)}' is no entry of a field, such as k[0] or k[sand]")
