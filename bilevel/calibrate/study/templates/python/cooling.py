"""Newton's law of cooling; numbers come as torch tensors, in the units of study.yml.

A function that works in units of its own says so, and gets them whatever the study has:

    from bilevel.calibrate import works_in

    @works_in("K", columns={"time": "s"}, parameters={"cooling_time": "s", ...})
"""

import torch


def temperature(parameters, columns):
    room, start = parameters["room_temperature"], parameters["initial_temperature"]
    return room + (start - room) * torch.exp(-columns["time"] / parameters["cooling_time"])
