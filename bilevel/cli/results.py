"""Commands on earlier results: uncertainty, plot, pest."""

from __future__ import annotations

import sys

from bilevel.cli.application import app
from bilevel.cli.options import (
    Debug,
    NoiseOption,
    Out,
    RunName,
    StudyPath,
)
from bilevel.cli.sessions import open_session
from bilevel.cli.streams import errors, say


@app.command()
def uncertainty(
    study: StudyPath, out: Out = None, named: RunName = None, noise: NoiseOption = None, debug: Debug = False
) -> None:
    """Standard deviations, intervals and correlations of an earlier run."""
    with errors(debug):
        session = open_session(study, out, named)
        from bilevel.calibrate.report.summary import correlation_table, summary

        result = session.earlier_result(noise)
        say(summary(session.study.title, result))
        say()
        say(correlation_table(result))


@app.command()
def plot(study: StudyPath, out: Out = None, named: RunName = None, debug: Debug = False) -> None:
    """Draw the pictures of an earlier run as PNG files in its folder."""
    with errors(debug):
        paths, failed = open_session(study, out, named).draw()
        for path in paths:
            say(path)
        for sentence in failed:
            print(f"note: {sentence}", file=sys.stderr)


@app.command()
def pest(study: StudyPath, out: Out = None, named: RunName = None, debug: Debug = False) -> None:
    """Write an earlier run as a PEST case (.pst, .jcb, covariances) into results/pest, for pyEMU and PEST++."""
    with errors(debug):
        for path in open_session(study, out, named).write_pest_case():
            say(path)
