"""Refusing forward mode over forward mode, which PyTorch gets wrong in custom functions.

Under torch.func.jvp of torch.func.jvp the outer derivative of a custom function's jvp is dropped (PyTorch 2.13), so
that jacfwd(jacfwd(f)) would miss terms in silence.
"""

from __future__ import annotations

from torch._functorch.pyfunctorch import JvpInterpreter, retrieve_all_functorch_interpreters

from bilevel.report import BilevelError


def refuse_nested_forward() -> None:
    """Raise BilevelError under two levels of forward mode; for the jvp of a custom function, which PyTorch would not differentiate."""
    levels = [i for i in retrieve_all_functorch_interpreters() if isinstance(i, JvpInterpreter)]
    # The outermost level never counts; levels that a jvp of ours opened inside have forward mode switched off below them.
    if any(level.prev_fwd_grad_mode() for level in levels[1:]):
        raise BilevelError(
            "forward mode over forward mode (jvp of jvp, jacfwd of jacfwd) does not work through an implicit layer; "
            "use torch.func.hessian, which is forward over reverse"
        )
