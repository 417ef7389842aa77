"""Canaries: each private part of PyTorch that is used still behaves as it did when the code that uses it was written."""

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

import bilevel
from bilevel.torch_internals import (
    forward_mode,
    full_tangents,
    has_tangent,
    is_batched_cotangent,
    is_transformed,
    outside_transforms,
    plain,
    pytree,
    refuse_nested_forward,
    vjp_of_batched_cotangents,
    without_tangent,
)

X = torch.tensor([1.0, 2.0, 3.0])


def seen_by(transform, question):
    """What `question` says of the tensor that a function sees under a transform."""
    answers = []

    def function(x):
        answers.append(question(x))
        return (x * x).sum()

    transform(function)
    return answers[0]


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f)(X),
    "vjp": lambda f: torch.func.vjp(f, X),
    "jvp": lambda f: torch.func.jvp(f, (X,), (X,)),
    "vmap": lambda f: torch.vmap(f)(X),
    "jacfwd": lambda f: torch.func.jacfwd(f)(X),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_tensor_under_a_transform_is_known_as_such(name):
    assert seen_by(TRANSFORMS[name], is_transformed)
    assert not is_transformed(X)
    assert not is_transformed(X.clone().requires_grad_())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_numbers_under_a_transform_can_be_read(name):
    numbers = seen_by(TRANSFORMS[name], lambda x: (2 * plain(x)).tolist())
    assert numbers == [2.0, 4.0, 6.0]
    assert plain(X.clone().requires_grad_()).tolist() == [1.0, 2.0, 3.0]


def test_the_numbers_under_two_batches_have_them_first():
    grid = torch.arange(6.0).reshape(2, 3)
    found = seen_by(lambda f: torch.vmap(torch.vmap(f), in_dims=1)(grid), plain)
    assert sorted(found.flatten().tolist()) == sorted(grid.flatten().tolist())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_forward_mode_is_seen_where_it_is_open_and_only_there(name):
    assert seen_by(TRANSFORMS[name], lambda x: forward_mode()) == (name in ("jvp", "jacfwd"))
    assert seen_by(TRANSFORMS[name], has_tangent) == (name in ("jvp", "jacfwd"))
    assert not forward_mode()
    assert not has_tangent(X)


def test_a_dual_number_loses_its_tangent_and_nothing_else():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, torch.ones(3))
        assert has_tangent(dual)
        assert not has_tangent(X)
        assert not has_tangent(without_tangent(dual))
        torch.testing.assert_close(without_tangent(dual), X, rtol=0.0, atol=0.0)
    assert without_tangent(X) is X


BATCHED: list[bool] = []


class Square(torch.autograd.Function):
    """x -> x^2, whose backward pass takes batched cotangents row by row and notes that it did."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        BATCHED.append(is_batched_cotangent(cotangent))
        if is_batched_cotangent(cotangent):
            assert is_transformed(cotangent)
            return vjp_of_batched_cotangents(lambda c: (2.0 * x * c,), cotangent)[0]
        return 2.0 * x * cotangent


def test_batched_cotangents_are_taken_apart_and_put_together_again():
    x = X.clone().requires_grad_()
    BATCHED.clear()
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    (many,) = torch.autograd.grad(Square.apply(x), x, rows, is_grads_batched=True)
    (one,) = torch.autograd.grad(Square.apply(x), x, rows[0])
    assert BATCHED == [True, False]
    torch.testing.assert_close(many, 2.0 * X * rows)
    torch.testing.assert_close(one, 2.0 * X * rows[0])


def forward_levels(f):
    """Whether `refuse_nested_forward` objects when it is called inside f's transforms."""

    def function(x):
        refuse_nested_forward()
        return (x**3).sum()

    try:
        f(function)
    except bilevel.BilevelError:
        return True
    return False


def test_forward_over_forward_is_refused_and_nothing_else():
    assert forward_levels(lambda f: torch.func.jacfwd(torch.func.jacfwd(f))(X))
    assert not forward_levels(lambda f: torch.func.jacfwd(f)(X))
    assert not forward_levels(lambda f: torch.func.hessian(f)(X))
    assert not forward_levels(lambda f: torch.func.jacrev(torch.func.jacfwd(f))(X))


def test_pytorch_still_drops_the_outer_derivative_of_a_jvp():
    """Once this fails, `refuse_nested_forward` is no longer needed."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_forward(*inputs)

        @staticmethod
        def jvp(ctx, tangent):
            (x,) = ctx.saved_tensors
            return 3.0 * x**2 * tangent

    def slope(x):
        return torch.func.jvp(Cube.apply, (x,), (torch.ones(()),))[1]

    second = torch.func.jvp(slope, (torch.tensor(2.0),), (torch.ones(()),))[1]
    assert float(second) != pytest.approx(12.0)


def test_trees_are_taken_apart_in_order_with_names_and_put_together_again():
    tree = {"b": [X, None], "a": (1.0, {"c": X})}
    leaves, spec = pytree.tree_flatten(tree)
    assert pytree.tree_leaves(tree) == leaves
    assert spec.num_leaves == len(leaves) == 4
    named, _ = pytree.tree_flatten_with_path(tree)
    assert [pytree.keystr(path) for path, _ in named] == ["['b'][0]", "['b'][1]", "['a'][0]", "['a'][1]['c']"]
    again = pytree.tree_unflatten(leaves, spec)
    assert again["a"][1]["c"] is X
    assert again["b"][1] is None
    assert pytree.tree_map(lambda leaf: leaf, tree)["b"][0] is X


def test_what_is_made_outside_transforms_stays_plain() -> None:
    made = []

    def function(x):
        with outside_transforms():
            made.append(torch.arange(3.0)[1])
        made.append(torch.arange(3.0)[1])
        return x * made[0]

    torch.func.grad(function)(torch.tensor(1.0))
    assert [is_transformed(tensor) for tensor in made] == [False, True]


def test_custom_functions_work_outside_transforms() -> None:
    class Doubled(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return 2.0 * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

    inside = []

    def function(x):
        with outside_transforms():
            inside.append(Doubled.apply(torch.tensor(3.0)))
        return x * inside[-1]

    _, moved = torch.vmap(lambda v: torch.func.jvp(function, (torch.tensor(1.0),), (v,)))(torch.tensor([1.0, 2.0]))
    assert moved.tolist() == [6.0, 12.0]
    assert not is_transformed(inside[0])


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compilers_go_round_the_solver() -> None:
    """Whatever surrounds it is compiled; the solver's own code is not even looked at."""
    seen = []

    def energy(u, k):
        seen.append(torch.compiler.is_compiling())
        return (k * (u - 1.0) ** 2 + u**4).sum()

    def model(k):
        return k * (bilevel.argmin(energy, torch.zeros(3), k).u ** 2).sum()

    k = torch.tensor(2.0, requires_grad=True)
    (plain,) = torch.autograd.grad(model(k), k)
    frames = []
    compiled = torch.compile(model, backend=lambda graph, inputs: frames.append(graph) or graph.forward)
    (found,) = torch.autograd.grad(compiled(k), k)
    assert torch.equal(found, plain)
    assert not any(seen)
    assert 1 <= len(frames) <= 3


OTHER = torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64)
OF_TWO = {
    "x * 2": lambda x: x * 2.0,
    "2 * x": lambda x: 2 * x,
    "x + 2": lambda x: x + 2.0,
    "2 - x": lambda x: 2.0 - x,
    "x - 2": lambda x: x - 2.0,
    "x / 2": lambda x: x / 2.0,
    "2 / x": lambda x: 2.0 / x,
    "torch.mul, integers": lambda x: torch.mul(torch.arange(3), x) + torch.arange(3) * 2,
    "x * c": lambda x: x * OTHER,
    "c - x": lambda x: OTHER - x,
    "c / x": lambda x: OTHER / x,
    "x ** c": lambda x: x**OTHER,
    "2 ** x": lambda x: 2.0**x,
    "maximum": lambda x: torch.maximum(x, OTHER),
    "atan2": lambda x: torch.atan2(OTHER, x),
    "matmul": lambda x: torch.outer(x, OTHER) @ OTHER + OTHER @ torch.outer(OTHER, x),
    "added in place": lambda x: x.clone().add_(OTHER).mul_(2.0),
    "with alpha": lambda x: torch.add(x, OTHER, alpha=3.0),
    "a scalar and a vector": lambda x: x.sum() * OTHER + x[0] * 2,
    "an expanded constant": lambda x: x * OTHER[0].expand(3) + x.sum().expand(3) * OTHER,
    "no tangent at all": lambda x: OTHER * 2.0 + x,
}


@pytest.mark.parametrize("name", OF_TWO)
def test_full_tangents_change_no_derivative(name):
    x, function = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), OF_TWO[name]
    expected = torch.stack([torch.func.vjp(function, x)[1](row)[0] for row in torch.eye(3, dtype=torch.float64)])
    with full_tangents():
        value, moved = torch.func.jvp(function, (x,), (torch.ones_like(x),))
        found = torch.vmap(lambda v: torch.func.jvp(function, (x,), (v,))[1])(torch.eye(3, dtype=torch.float64)).T
        twice = torch.func.hessian(lambda y: function(y).square().sum())(x)
    torch.testing.assert_close(value, function(x), rtol=1e-15, atol=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(moved, expected.sum(1), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(
        twice, torch.func.hessian(lambda y: function(y).square().sum())(x), rtol=1e-14, atol=1e-14
    )


def test_derivatives_do_without_the_compiler():
    code = """
import sys, torch
from bilevel.torch_internals import forward_sweeps, full_tangents
x = torch.ones(3)
norm = torch.func.grad(lambda x: torch.nn.functional.layer_norm(x, (3,)).square()[0])
assert len(forward_sweeps(lambda: torch.func.jvp(torch.sin, (x,), (x,)))) == 2
assert "torch._decomp.decompositions_for_jvp" not in sys.modules, "formulas that nobody needed were loaded"
y = torch.arange(3.0)
found = forward_sweeps(lambda: torch.func.jvp(norm, (y,), (x,))[1])
assert torch.equal(found, torch.func.jvp(norm, (y,), (x,))[1]) and "torch._decomp.decompositions_for_jvp" in sys.modules
with full_tangents():
    torch.func.jvp(lambda x: 2 * x / (1 + x) - 1 / x, (x,), (x,))
torch.func.jvp(lambda y: torch.maximum(y, x) * x - 1, (x,), (x,))
torch.func.grad(lambda x: (2 * x).sum())(x), torch.func.vjp(torch.sin, x)[1](x), torch.func.hessian(lambda x: (x**3).sum())(x)
assert not any(name.startswith("torch._dynamo") for name in sys.modules), "the compiler was imported"
assert isinstance(torch._dynamo.config.cache_size_limit, int) and callable(torch._dynamo.disable)
assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2)).tolist() == [2.0, 2.0]
import torch._dynamo.utils
assert torch._dynamo is sys.modules["torch._dynamo"]
assert torch.func.grad(lambda x: (x * x).sum())(x).tolist() == [2.0, 2.0, 2.0]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
