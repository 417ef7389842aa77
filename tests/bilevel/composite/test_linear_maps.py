"""Linear maps: adjoints, norms, fingerprints and their complaints."""

import math

import pytest
import scipy.sparse
import torch

from bilevel.inversion.networks.signals import SparseSignals
from bilevel.linalg.linear_map import (
    Composed,
    Convolution,
    LinearisedResponse,
    Matrix,
    Sampling,
    as_linear_map,
    dot_product_mismatch,
    gaussian_kernel,
)
from bilevel.report import InputError


def response(x: torch.Tensor) -> torch.Tensor:
    """A nonlinear response with more outputs than inputs."""
    return torch.cat([x.sin() * x.roll(1), x.square(), x[:1].exp()])


def maps() -> dict:
    blur = Convolution(gaussian_kernel(1.5, 3), (12, 9))
    sensors = Sampling.from_scipy(scipy.sparse.random(7, 20, density=0.3, rng=0))
    return {
        "matrix": Matrix(torch.randn(5, 8)),
        "blur": blur,
        "shaped matrix": Matrix(torch.randn(6, 12), domain=(3, 4), range=(2, 3)),
        "dense blur": Convolution(gaussian_kernel(0.8, 1), (4, 5)).dense(),
        "even kernel": Convolution(torch.randn(2, 4), (6, 10)),
        "sensors": sensors,
        "picked": Sampling.at(torch.tensor([3, 3, 1]), 6),
        "linearised": LinearisedResponse(response, torch.randn(6)),
        "composed": Composed(Matrix(torch.randn(4, 7)), sensors),
    }


@pytest.mark.parametrize("name", list(maps()))
def test_the_adjoint_is_the_adjoint(name: str) -> None:
    A = maps()[name]
    assert all(dot_product_mismatch(A, seed) < 1e-13 for seed in range(3))


@pytest.mark.parametrize("name", list(maps()))
def test_batches_are_treated_sample_by_sample_and_agree_with_the_matrix(name: str) -> None:
    A = maps()[name]
    x = torch.randn(2, 3, *A.domain)
    together = A(x)
    alone = torch.stack([torch.stack([A(v) for v in row]) for row in x])
    assert torch.allclose(together, alone, atol=1e-12)
    assert torch.allclose(A(x[0, 0]).reshape(-1), A.matrix() @ x[0, 0].reshape(-1), atol=1e-12)


@pytest.mark.parametrize("name", list(maps()))
def test_the_norm_is_the_largest_singular_value(name: str) -> None:
    A = maps()[name]
    exact = float(torch.linalg.matrix_norm(A.matrix(), 2))
    assert A.norm(iterations=300) == pytest.approx(exact, rel=1e-4)
    assert A.norm() <= exact * (1 + 1e-12)


def test_a_convolution_agrees_with_the_direct_sum() -> None:
    kernel, x = torch.randn(3, 3), torch.randn(5, 6)
    expected = torch.zeros(5, 6)
    for i in range(5):
        for j in range(6):
            for a in range(3):
                for b in range(3):
                    expected[i, j] += kernel[a, b] * x[(i - a + 1) % 5, (j - b + 1) % 6]
    assert torch.allclose(Convolution(kernel, (5, 6))(x), expected, atol=1e-12)


def test_the_linearised_map_is_the_derivative() -> None:
    at, d = torch.randn(6), torch.randn(6)
    A = LinearisedResponse(response, at)
    h = 1e-6
    finite = (response(at + h * d) - response(at - h * d)) / (2 * h)
    assert torch.allclose(A(d), finite, rtol=1e-7, atol=1e-8)


def test_fingerprints_tell_maps_apart_in_any_precision() -> None:
    matrix = torch.randn(6, 9)
    print_ = Matrix(matrix).fingerprint()
    assert print_.matches(Matrix(matrix.float()).fingerprint())
    assert print_.matches(as_linear_map(matrix.numpy()).fingerprint())
    changed = matrix.clone()
    changed[2, 3] += 0.05
    assert not print_.matches(Matrix(changed).fingerprint())
    assert not print_.matches(Matrix(matrix[:5]).fingerprint())


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 9), torch.full((8,), math.nan), torch.tensor(1.0)])
def test_data_that_do_not_fit_are_refused_in_a_sentence(bad: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"data"):
        Matrix(torch.randn(8, 4)).check_data(bad)


def test_operators_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        Matrix(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(InputError, match="two dimensions"):
        Matrix(torch.zeros(3))
    with pytest.raises(InputError, match="does not take"):
        Matrix(torch.zeros(4, 6), domain=(2, 2))
    with pytest.raises(InputError, match="outer map"):
        Composed(Matrix(torch.zeros(2, 3)), Matrix(torch.zeros(4, 5)))
    with pytest.raises(InputError, match="fit in the picture"):
        Convolution(torch.zeros(9, 9), (5, 20))
    with pytest.raises(InputError, match="column 7"):
        Sampling(torch.tensor([0]), torch.tensor([7]), torch.ones(1), (1, 7))


def test_signals_have_the_stated_density_groups_and_noise() -> None:
    A = Matrix(torch.randn(50, 100) / 50**0.5)
    generator = torch.Generator().manual_seed(0)
    x, y = SparseSignals(A, 0.2, snr_db=20.0, group=5).draw(4000, generator)
    active = (x.reshape(4000, 20, 5) != 0).all(-1)
    assert float(active.double().mean()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(active, (x.reshape(4000, 20, 5) != 0).any(-1))
    noise = y - A(x)
    keep = A(x).norm(dim=1) > 0
    snr = 10 * torch.log10((A(x)[keep].square().sum(1) / noise[keep].square().sum(1)).mean())
    # noise is scaled to the size of each sample's data: E |noise|^2 = |A x|^2 / 100
    assert float(snr) == pytest.approx(20.0, abs=0.3)
