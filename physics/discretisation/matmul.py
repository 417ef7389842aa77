"""Products of many small matrices: by NumPy where plain numbers are asked for, which takes a half to a fifth of the time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.torch_internals import forward_mode, is_transformed


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for stacks of matrices (..., n, k) and (..., k, m); differentiable."""
    if _number(a) and _number(b):
        return torch.from_numpy(np.matmul(a.detach().numpy(), b.detach().numpy()))
    return a @ b


def _number(x: Tensor) -> bool:
    """Whether x stands for its values alone: on the CPU, with no derivative and no transform under way."""
    return (
        x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
        and not forward_mode()
        and not is_transformed(x)
    )
