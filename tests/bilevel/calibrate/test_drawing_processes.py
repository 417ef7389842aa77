"""Pictures drawn by processes beside this one: the same files, whatever cannot be sent or kills them."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from bilevel.calibrate.report.drawing_processes import DrawingProcesses
from bilevel.calibrate.report.rendering import Image
from bilevel.calibrate.report.result_plots import misfit_figure

PHI = partial(misfit_figure, np.array([3.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def processes():
    drawing = DrawingProcesses(2)
    yield drawing
    drawing.close()


def fails() -> Any:
    raise ValueError("no such picture")


def test_they_draw_what_is_drawn_here(processes):
    drawings = [PHI, partial(misfit_figure, np.array([5.0, 4.0])), PHI]
    beside, here = (which.rendered(drawings, "png") for which in (processes, DrawingProcesses()))
    assert beside == here
    assert [image.width for image in here] == [4.0] * 3
    assert here[0] != here[1]


def test_what_cannot_be_sent_is_drawn_here(processes):
    image, failure, other = processes.rendered([lambda: PHI(), fails, PHI], "png")
    assert isinstance(image, Image)
    assert image == other
    assert isinstance(failure, ValueError)
    assert str(failure) == "no such picture"


def test_a_process_that_dies_costs_no_picture():
    drawing = DrawingProcesses(1)
    drawing.processes[0].kill()
    drawing.processes[0].wait()
    assert isinstance(drawing.rendered([PHI], "png")[0], Image)
    drawing.close()


def test_they_end_with_the_process_that_started_them():
    code = (
        "from bilevel.calibrate.report.drawing_processes import DrawingProcesses; import os; "
        "drawing = DrawingProcesses(1); os.kill(os.getpid(), 9)"
    )
    # Returns when nobody writes errors any more, and they write theirs where their parent does.
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)


def test_they_load_neither_pytorch_nor_scipy():
    code = (
        "import sys, bilevel.calibrate.report.result_plots, bilevel.calibrate.report.fit_plots, "
        "bilevel.calibrate.report.data_plots, bilevel.calibrate.report.drawing_processes; "
        "print([m for m in ('torch', 'scipy', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
