"""Learned steps against the best classical solvers, each tuned on the same training set: times, counts, wins and losses."""

from bilevel.steps.bench.methods import Method, classical_methods
from bilevel.steps.bench.report import Report, Settings
from bilevel.steps.bench.run import run
from bilevel.steps.bench.table import text, to_json

__all__ = ["Method", "Report", "Settings", "classical_methods", "run", "text", "to_json"]
