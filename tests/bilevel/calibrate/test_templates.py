"""Every template runs as it is written, and its derivatives are right."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bilevel.cli import app

SLOW = [pytest.param("command", marks=pytest.mark.slow)]
KINDS = ["python", "expression", "strength_envelope", "flow_curve", *SLOW]


@pytest.mark.parametrize("kind", KINDS)
def test_template(kind, tmp_path, no_pictures):
    run = CliRunner().invoke
    assert run(app, ["init", str(tmp_path / "new"), "--kind", kind]).exit_code == 0
    study = str(tmp_path / "new" / "study.yml")
    checked = run(app, ["check", study])
    assert checked.exit_code == 0, checked.output
    assert "verdict: right" in checked.stdout
    assert run(app, ["run", study]).exit_code == 0
    again = run(app, ["init", str(tmp_path / "new"), "--kind", kind])
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
