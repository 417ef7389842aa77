"""The model functions of three NIST nonlinear regression problems (NIST/ITL StRD: Misra1a, Hahn1, Kirby2)."""

import torch


def misra1a(parameters, columns):
    return parameters["b1"] * (1 - torch.exp(-parameters["b2"] * columns["pressure"]))


def hahn1(parameters, columns):
    x = columns["temperature"]
    b = [parameters[f"b{k}"] for k in range(1, 8)]
    return (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def kirby2(parameters, columns):
    x = columns["x"]
    b = [parameters[f"b{k}"] for k in range(1, 6)]
    return (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4]))
