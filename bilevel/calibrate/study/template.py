"""The study that `bilevel init` writes: commented, with a model of its own in five lines and ten readings."""

from __future__ import annotations

from pathlib import Path

from bilevel.calibrate.study.registry import find_model
from bilevel.report import InputError

_STUDY = """\
# A study: what is measured, which model predicts it, and which of its parameters are unknown.
# bilevel check study.yml    validates this file and the derivatives of the model
# bilevel run study.yml      calibrates and writes results/report.html

title: A cup of coffee cools down
description: Ten temperatures of a cup in a room of 21 degrees; Newton's law of cooling.

model:
  kind: python              # a function of one's own; installed models have names, such as kind: pumping_test
  file: cooling.py
  name: temperature

parameters:
  - name: initial_temperature
    value: 80               # where to start, in `units`
    units: degC             # an unknown unit is an error
    lower: 40               # bounds, in `units`
    upper: 100
  - name: cooling_time
    value: 60
    units: min
    lower: 1
    upper: 1000
    transform: log          # none | log | logit; log suits what is positive and of unknown size
  - name: room_temperature
    value: 21
    units: degC
    fixed: true             # known; leave this out to fit it as well

observations:
  - file: readings.csv      # lines that start with # are comments
    value: {column: temperature, units: degC}
    columns:                # what the model needs besides
      time: {column: minutes, units: min}
    group: cup              # or {column: ...}: phi and rmse are reported by group
    std: 0.5                # weight = 1/std, in the units of the values; 'weight: 0' predicts without fitting

calibration:
  method: least_squares     # or lbfgsb, for very many parameters
  noptmax: 50               # 0: one run and its report; -1: Jacobian and linear statistics
  noise: estimated          # 'known' if std is trusted as it stands
"""

_MODEL = '''\
"""Newton's law of cooling; numbers come as torch tensors, in the units of study.yml.

A function that works in units of its own says so, and gets them whatever the study has:

    from bilevel.calibrate import works_in

    @works_in("K", columns={"time": "s"}, parameters={"cooling_time": "s", ...})
"""

import torch


def temperature(parameters, columns):
    room, start = parameters["room_temperature"], parameters["initial_temperature"]
    return room + (start - room) * torch.exp(-columns["time"] / parameters["cooling_time"])
'''

_DATA = """\
# temperature of a cup of coffee; made up for this template
minutes,temperature
0,85.2
5,76.5
10,69.9
15,62.9
20,58.0
30,49.0
40,41.8
50,37.2
60,33.0
90,26.6
"""


def write_template(folder: Path, kind: str | None = None) -> Path:
    """Write the template of a kind into a folder and return the path of study.yml; InputError if one of its files is there."""
    files = {"study.yml": _STUDY, "cooling.py": _MODEL, "readings.csv": _DATA} if kind is None else _of_kind(kind)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected a new folder")
    for name in files:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: is there already; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder / "study.yml"


def _of_kind(kind: str) -> dict[str, str]:
    """The files of a kind's own template."""
    source = find_model(kind).template
    if source is None:
        raise InputError(f"kind '{kind}' has no template; bilevel init FOLDER writes one of kind python")
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(source.iterdir()) if file.is_file()}
