"""Pictures drawn by a process beside this one: the same files, whatever cannot be sent or kills it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from bilevel.calibrate.report import drawing_process
from bilevel.calibrate.report.drawing_process import DrawingProcess, draw_here
from bilevel.calibrate.report.rendering import Image
from bilevel.calibrate.report.result_plots import misfit_figure

PHI = partial(misfit_figure, np.array([3.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def beside():
    process = DrawingProcess()
    yield process
    process.close()


def fails() -> Any:
    raise ValueError("no such picture")


def test_it_draws_what_is_drawn_here(beside):
    drawings = [PHI, partial(misfit_figure, np.array([5.0, 4.0])), PHI]
    here = draw_here(drawings, "png")
    assert beside.draw(drawings, "png") == here
    assert [image.width for image in here] == [4.0] * 3
    assert here[0] != here[1]


def test_what_cannot_be_sent_is_drawn_here(beside):
    image, failure, other = beside.draw([lambda: PHI(), fails, PHI], "png")
    assert isinstance(image, Image)
    assert image == other
    assert isinstance(failure, ValueError)
    assert str(failure) == "no such picture"


def test_it_draws_itself_what_can_be_sent(beside, monkeypatch):
    monkeypatch.setattr(drawing_process, "rendered", fails)
    images = beside.draw([PHI] * 5, "png")
    assert all(isinstance(image, Image) for image in images)


def test_a_process_that_dies_costs_no_picture():
    process = DrawingProcess()
    process.process.kill()
    process.process.wait()
    assert isinstance(process.draw([PHI], "png")[0], Image)
    process.close()


DYING_FORKS = """
import os
from bilevel.calibrate.report import drawing_process as module

us = os.getpid()
os.cpu_count = lambda: 4
module.rendered = lambda drawing, kind: drawing if os.getpid() == us else os._exit(1)
found = module._shared([module._pickled((f"picture {k}", "svg")) for k in range(300)])
assert 297 <= len(found) <= 300
assert all(picture == f"picture {k}" for k, picture in found.items())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_a_fork_that_dies_costs_no_more_than_its_pictures():
    subprocess.run([sys.executable, "-c", DYING_FORKS], check=True, timeout=60)


def test_it_ends_with_the_process_that_started_it():
    code = (
        "from bilevel.calibrate.report.drawing_process import DrawingProcess; import os; "
        "process = DrawingProcess(); os.kill(os.getpid(), 9)"
    )
    # Returns when nobody writes errors any more, and it writes its own where its parent does.
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)


def test_it_loads_neither_pytorch_nor_scipy():
    code = (
        "import sys, bilevel.calibrate.report.result_plots, bilevel.calibrate.report.fit_plots, "
        "bilevel.calibrate.report.data_plots, bilevel.calibrate.report.drawing_process; "
        "print([m for m in ('torch', 'scipy', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
