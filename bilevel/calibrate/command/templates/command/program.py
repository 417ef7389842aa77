"""Stands for a simulator: reads input.txt, writes heights.csv."""

import math

with open("input.txt") as file:
    given = {name: float(value) for name, value in map(str.split, file)}
with open("heights.csv", "w") as out:
    print("time,height", file=out)
    for step in range(8):
        time = 0.5 * step
        print(f"{time},{given['amplitude'] * math.exp(-given['rate'] * time)!r}", file=out)
