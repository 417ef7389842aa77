"""A device that is not there: its tensors hold their numbers on the CPU, but refuse to be mixed with the CPU's.

So that a computer without a GPU notices a tensor that was forgotten on the host. Does not go through torch.func.vmap of
forward-mode derivatives, where PyTorch cannot take tensors of a subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)
"""PyTorch knows the name, and nothing answers to it."""
CREATORS = ("tensor", "as_tensor", "zeros", "ones", "full", "eye", "arange", "empty", "linspace")


class Far(Tensor):
    """A tensor that says it is on the device; `numbers` is what it holds."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> Far:
        place = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset()}
        far = Tensor._make_wrapper_subclass(cls, numbers.size(), dtype=numbers.dtype, device=DEVICE, **place)
        far.numbers = numbers
        return far

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def numbers(tensor: Tensor) -> Tensor:
    """What a tensor holds, wherever it is."""
    return tensor.numbers if isinstance(tensor, Far) else tensor


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Inside the block there is one more device."""
    with ExitStack() as stack:
        for name in CREATORS:
            stack.enter_context(patch.object(torch, name, _by_moving(getattr(torch, name))))
        as_list, like = Tensor.tolist, Tensor.new_tensor
        stack.enter_context(patch.object(Tensor, "tolist", lambda t: as_list(numbers(t))))
        stack.enter_context(
            patch.object(Tensor, "new_tensor", lambda t, data: like(torch.empty(0, dtype=t.dtype), data).to(t.device))
        )
        stack.enter_context(_Dispatch())
        stack.enter_context(
            torch.autograd.set_multithreading_enabled(False)
        )  # another thread would be outside the block
        yield DEVICE


def _by_moving(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, device: Any = None, **options: Any) -> Tensor:
        made_here = create(*args, **options)
        return made_here if device is None else made_here.to(device)

    return made


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.name()
    leaves: list[Any] = []
    given = _bare(args, leaves)
    options = _bare(kwargs, leaves)
    far = any(isinstance(leaf, Far) for leaf in leaves)
    if far and "_to_copy" not in name and "copy_" not in name:
        _refuse_mixture(name, leaves)
    asked = kwargs.get("device")
    if asked is not None:
        far, options = torch.device(asked).type != "cpu", {**options, "device": torch.device("cpu")}
    result = func(*given, **options)
    if args and isinstance(args[0], Far) and result is args[0].numbers:  # in place
        return args[0]
    return pytree.tree_map(_wrapped, result) if far else result


def _bare(thing: Any, leaves: list[Any]) -> Any:
    """Arguments with the tensors' numbers in their place; the tensors are noted."""
    if isinstance(thing, Tensor):
        leaves.append(thing)
        return numbers(thing)
    if isinstance(thing, dict):
        return {key: _bare(value, leaves) for key, value in thing.items()}
    return type(thing)(_bare(value, leaves) for value in thing) if type(thing) in (list, tuple) else thing


def _refuse_mixture(name: str, leaves: list[Any]) -> None:
    """As a GPU does: numbers, and integers that index, may come from the host."""
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or isinstance(leaf, Far) or leaf.dim() == 0 or leaf.layout != torch.strided:
            continue
        if "index" not in name or leaf.is_floating_point():
            raise RuntimeError(f"{name}: a tensor {tuple(leaf.shape)} on the CPU among those on {DEVICE}")


def _wrapped(result: Any) -> Any:
    plain = isinstance(result, Tensor) and not isinstance(result, Far) and result.layout == torch.strided
    return Far(result) if plain else result
