"""Everything that is used of PyTorch's private parts; each use has a test that fails when PyTorch changes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import ModuleType, SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import torch
import torch._refs
from torch import Tensor, _compile
from torch._C._dynamo import eval_frame
from torch._functorch.pyfunctorch import (
    JvpInterpreter,
    retrieve_all_functorch_interpreters,
    temporarily_clear_interpreter_stack,
)
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bilevel.report import BilevelError

P = ParamSpec("P")
R = TypeVar("R")

__all__ = [
    "Constants",
    "forward_mode",
    "forward_sweeps",
    "full_tangents",
    "has_tangent",
    "is_batched_cotangent",
    "is_transformed",
    "jvp",
    "outside_compilation",
    "outside_transforms",
    "plain",
    "pytree",
    "refuse_nested_forward",
    "unwrapped",
    "vjp",
    "vjp_of_batched_cotangents",
    "with_tangent",
    "without_saved_tensor_hooks",
    "without_tangent",
]


def forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return forward_ad._current_level >= 0


def has_tangent(tensor: Tensor) -> bool:
    """Whether a tensor carries a forward-mode tangent at the innermost level."""
    return forward_mode() and forward_ad.unpack_dual(tensor).tangent is not None


def without_tangent(tensor: Tensor) -> Tensor:
    """The tensor without its forward-mode tangent at the innermost level."""
    return forward_ad.unpack_dual(tensor).primal if forward_mode() else tensor


def with_tangent(tensor: Tensor) -> Tensor:
    """The tensor with a tangent at the innermost level, of zeros where it has none."""
    if has_tangent(tensor):
        return tensor
    tensor = tensor.contiguous()  # PyTorch refuses tangents for tensors that are expanded
    return forward_ad.make_dual(tensor, torch.zeros_like(tensor))


def is_batched_cotangent(tensor: Tensor) -> bool:
    """Whether a tensor is the batch of cotangents that `torch.autograd.grad(..., is_grads_batched=True)` makes."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor stands for more than its own numbers: under vmap, grad, jvp or batched cotangents."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor) or is_batched_cotangent(tensor)


def plain(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, whatever torch.func transforms it is under; a batched one shows its batch, as first axis."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        batch = torch._C._functorch.maybe_get_bdim(tensor) if torch._C._functorch.is_batchedtensor(tensor) else 0
        tensor = torch._C._functorch.get_unwrapped(tensor)
        tensor = tensor.movedim(batch, 0) if batch else tensor
    if is_batched_cotangent(tensor):
        raise BilevelError("numbers cannot be taken out of batched cotangents; take their rows one by one")
    return without_tangent(tensor).detach()


def vjp_of_batched_cotangents(function: Callable[..., tuple[Tensor, ...]], *cotangents: Tensor) -> list[Tensor]:
    """A vjp for the cotangents of torch.autograd.grad(..., is_grads_batched=True), as one batch of solves.

    That call wraps them in a batching of its own, which custom functions do not see through: take the rows out of it,
    run them under torch.vmap, and put the results back.
    """
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    batched = [is_batched_cotangent(c) for c in cotangents]
    rows = [torch._remove_batch_dim(c, level, 0, 0) if many else c for c, many in zip(cotangents, batched, strict=True)]
    dims = tuple(0 if many else None for many in batched)
    return [torch._add_batch_dim(grad, 0, level) for grad in torch.vmap(function, dims)(*rows)]


def refuse_nested_forward() -> None:
    """Raise BilevelError under two levels of forward mode; for the jvp of a custom function.

    Under torch.func.jvp of torch.func.jvp the outer derivative of a custom function's jvp is dropped (PyTorch 2.13), so
    that jacfwd(jacfwd(f)) would miss terms in silence.
    """
    levels = [i for i in retrieve_all_functorch_interpreters() if isinstance(i, JvpInterpreter)]
    # The outermost level never counts; levels that a jvp of ours opened inside have forward mode switched off below them.
    if any(level.prev_fwd_grad_mode() for level in levels[1:]):
        raise BilevelError(
            "forward mode over forward mode (jvp of jvp, jacfwd of jacfwd) does not work through an implicit layer; "
            "use torch.func.hessian, which is forward over reverse"
        )


def jvp(function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """The derivative of function(*primals) along the tangents.

    Inside torch.autograd.forward_ad.dual_level, where PyTorch refuses torch.func.jvp ("nested forward mode"), it is the
    transpose of the transpose.
    """
    if not forward_mode() or retrieve_all_functorch_interpreters():
        with full_tangents():
            return torch.func.jvp(function, tuple(primals), tuple(tangents))[1]
    value, transposed = torch.func.vjp(function, *primals)[:2]
    return torch.func.vjp(transposed, torch.zeros_like(value))[1](tuple(tangents))[0]


def vjp(function: Callable[..., Tensor], *primals: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """As torch.func.vjp(function, *primals)[1], where some primals may be without influence.

    Inside further transforms PyTorch makes the zeros of such a primal at a level that has ended, and an internal assertion
    fails. So each primal is also handed through, with a cotangent of zero.
    """
    through = torch.func.vjp(lambda *tensors: (function(*tensors), *(tensor.clone() for tensor in tensors)), *primals)[
        1
    ]
    return lambda cotangent: through((cotangent, *(torch.zeros_like(primal) for primal in primals)))


@contextmanager
def without_saved_tensor_hooks() -> Iterator[None]:
    """Take off saved-tensor hooks (checkpoints, save_on_cpu), with which torch.func refuses to work, and put them back.

    What is computed inside is not saved for any graph of the user's.
    """
    hooks = []
    while (top := torch._C._autograd._top_saved_tensors_default_hooks(False)) is not None:
        hooks.append(top)
        torch._C._autograd._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pack, unpack in reversed(hooks):
            torch._C._autograd._push_saved_tensors_default_hooks(pack, unpack)


def outside_compilation(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which torch.compile neither traces nor compiles, nor anything that it calls.

    As torch.compiler.disable does, without the second that importing PyTorch's compiler takes.
    """
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    skip = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)
    eval_frame.set_code_exec_strategy(function.__code__, skip)  # type: ignore[attr-defined]
    return function


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Inside the block, what is made of plain tensors is plain: no transform of torch.func wraps it."""
    # The stack is cleared, not only switched off: a custom function inside would still look for an interpreter.
    with temporarily_clear_interpreter_stack():
        yield


class Constants:
    """Tensors that a function closes over and that were made inside a transform, with the numbers that they stand for.

    PyTorch wraps every tensor made inside torch.func.jvp or grad; where a custom function calls the user's code one level
    lower, such a wrapper is foreign and an internal assertion fails. Found while the function runs once (`watched`), put
    in their place by `unwrapped`.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[Tensor, Tensor]] = {}  # the wrapper is kept, so that its id stays its own

    def watched(self, own: Sequence[Tensor]) -> AbstractContextManager[object]:
        """Find them among what PyTorch functions get inside the block; `own` tensors are no constants."""
        return _Watch(self._numbers, own) if retrieve_all_functorch_interpreters() else nullcontext()

    def unwrapped(self) -> AbstractContextManager[object]:
        """Inside the block each constant is what it stands for."""
        return _Unwrap(self._numbers) if self._numbers else nullcontext()


class _Watch(TorchFunctionMode):
    def __init__(self, numbers: dict[int, tuple[Tensor, Tensor]], own: Sequence[Tensor]) -> None:
        self.numbers = numbers
        self.known = {id(tensor): tensor for tensor in own}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs or {})):
            if isinstance(leaf, Tensor) and id(leaf) not in self.known and is_transformed(leaf):
                numbers = unwrapped(leaf)
                if numbers is not None:
                    self.numbers[id(leaf)] = (leaf, numbers)
        result = func(*args, **(kwargs or {}))
        self.known |= {id(leaf): leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)}
        return result


class _Unwrap(TorchFunctionMode):
    def __init__(self, numbers: dict[int, tuple[Tensor, Tensor]]) -> None:
        self.numbers = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(self._number, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _number(self, leaf: Any) -> Any:
        return self.numbers.get(id(leaf), (None, leaf))[1]


def unwrapped(tensor: Tensor) -> Tensor | None:
    """What is inside all wrappers, or None where that is a batch."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return None
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor  # as it is: an operation here would wrap it again


FULL_UP_TO = 32_768
"""Entries of a constant up to which its tangent of zeros costs less than PyTorch's way of doing without."""

_aten = torch.ops.aten
_WITH_NUMBERS: dict[Callable[..., Any], Callable[[Tensor, float], Tensor]] = {
    **dict.fromkeys((torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _aten.mul.Scalar),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), _aten.add.Scalar),
    **dict.fromkeys((torch.sub, torch.subtract, Tensor.sub, Tensor.__sub__), _aten.sub.Scalar),
    **dict.fromkeys((torch.div, torch.divide, Tensor.div, Tensor.__truediv__), _aten.div.Scalar),
}
_NUMBER_OVER = (Tensor.__rdiv__, Tensor.__rtruediv__)
_OF_TWO = frozenset(
    (
        *_WITH_NUMBERS,
        *(torch.maximum, torch.minimum, torch.pow, torch.atan2, torch.hypot, torch.outer, torch.dot, torch.matmul),
        *(Tensor.maximum, Tensor.minimum, Tensor.pow, Tensor.__pow__, Tensor.atan2, Tensor.outer, Tensor.dot),
        *(Tensor.matmul, Tensor.__matmul__),
    )
)
_FILLING: ContextVar[bool] = ContextVar("full_tangents", default=False)


@contextmanager
def full_tangents() -> Iterator[None]:
    """Inside the block forward mode costs little more than the arithmetic.

    Where a tensor with a tangent meets one without, or a number, PyTorch 2.13 takes the missing tangent for zeros without
    storage and works out the shape of each result in Python, 0.4 ms an operation. So small constants get a tangent of zeros here, and numbers go to the operations that know them as such.
    """
    if _FILLING.get():
        yield
        return
    token = _FILLING.set(True)
    try:
        with _FullTangents():
            yield
    finally:
        _FILLING.reset(token)


class _FullTangents(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs or len(args) != 2:
            return func(*args, **(kwargs or {}))
        one, other = args
        if func in _NUMBER_OVER:
            return _aten.mul.Scalar(one.reciprocal(), other) if _is_number(other) else func(one, other)
        if func not in _OF_TWO:
            return func(one, other)
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            return func(*self._filled(one, other))
        if func in _WITH_NUMBERS and _is_number(other):
            return _WITH_NUMBERS[func](one, other)
        return func(one, other)

    def _filled(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The two, where one alone has a tangent with one for the other."""
        moves, moves_too = has_tangent(one), has_tangent(other)
        if moves == moves_too:
            return one, other
        return (one, self._full(other)) if moves else (self._full(one), other)

    def _full(self, constant: Tensor) -> Tensor:
        if constant.numel() > FULL_UP_TO or not constant.is_floating_point():
            return constant
        return with_tangent(constant)


def _is_number(x: Any) -> bool:
    return type(x) is float or type(x) is int


def forward_sweeps(work: Callable[[], R]) -> R:
    """The result of work(), first tried without loading what PyTorch has for operations without a forward derivative.

    Few need that (trace, norms of layers, losses of classes), the first dual tensor loads it, and it takes a third of a second.
    """
    if _DECOMPOSITIONS in sys.modules:
        return work()
    forward_ad._maybe_load_decompositions = lambda: None  # type: ignore[attr-defined]
    try:
        return work()
    except RuntimeError as error:
        if "forward AD" not in str(error):
            raise
    finally:
        # The original, not what was found: in a thread beside another one that was found would be the empty one.
        forward_ad._maybe_load_decompositions = _LOAD  # type: ignore[attr-defined]
    importlib.import_module(_DECOMPOSITIONS)
    return work()


_LOAD = forward_ad._maybe_load_decompositions  # type: ignore[attr-defined]
_DECOMPOSITIONS = "torch._decomp.decompositions_for_jvp"


class _CompilerLater(ModuleType):
    """torch._dynamo as long as it is only asked to keep out; anything else imports it, which takes two seconds.

    torch.func.grad and vjp ask each time (PyTorch 2.13); an import of the package itself replaces this by the real one.
    """

    compiled_autograd = SimpleNamespace(_disable=nullcontext)

    def __getattr__(self, name: str) -> Any:
        vars(torch).pop("_dynamo", None)
        return getattr(importlib.import_module("torch._dynamo"), name)


def _spare_the_compiler() -> None:
    """Let PyTorch not import its compiler merely to leave it out."""
    if "torch._dynamo" in sys.modules:
        return
    torch._dynamo = _CompilerLater("torch._dynamo")  # type: ignore[assignment]
    for name in torch._refs.__all__:  # what works out shapes imports it at its first call
        function: Any = getattr(torch._refs, name, None)
        while hasattr(function, "__code__"):
            free = function.__code__.co_freevars
            if function.__code__.co_filename == _compile.__file__ and "fn" in free:
                left_out = function.__closure__[free.index("fn")].cell_contents
                left_out.__dynamo_disable = left_out
            function = getattr(function, "__wrapped__", None)


_spare_the_compiler()
