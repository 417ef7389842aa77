"""Sparse codes and their hypergradient; dictionaries learned from data and for a task."""

import math

import pytest
import torch

from bilevel.inversion.networks import (
    DictionarySchedule,
    ElasticNet,
    SparseClassifier,
    fit_classifier,
    learn_task_driven,
    sparse_codes,
)
from bilevel.inversion.networks.dictionary import learn_unsupervised, unit_columns
from bilevel.report import InputError, SingularError


def atoms(m: int = 20, k: int = 30) -> torch.Tensor:
    return unit_columns(torch.randn(m, k))


@pytest.mark.parametrize("l2", [0.0, 1e-3, 0.5])
def test_codes_meet_the_optimality_conditions(l2: float) -> None:
    D, y, problem = atoms(), torch.randn(15, 20), ElasticNet(0.3, l2)
    a = sparse_codes(y, D, problem).values
    correlation = (y - a @ D.mT) @ D - l2 * a
    assert float(torch.relu(correlation.abs() - 0.3).max()) < 1e-8
    assert float((correlation - 0.3 * a.sign())[a != 0].abs().max()) < 1e-8
    assert 0 < int((a != 0).sum()) < a.numel()


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_the_hypergradient_agrees_with_finite_differences(l2: float) -> None:
    D, y, problem = atoms().requires_grad_(), torch.randn(6, 20).requires_grad_(), ElasticNet(0.3, l2)
    goal = torch.randn(6, 30)

    def loss(data: torch.Tensor, dictionary: torch.Tensor) -> torch.Tensor:
        codes = sparse_codes(data, dictionary, problem)
        assert not bool(codes.near_kinks.any())
        return (codes.values.square() * goal).sum()

    found = torch.autograd.grad(loss(y, D), [y, D])
    moves = [torch.randn_like(y), torch.randn_like(D)]
    h = 1e-6
    with torch.no_grad():
        plus = loss(y + h * moves[0], D + h * moves[1])
        minus = loss(y - h * moves[0], D - h * moves[1])
    expected = float(plus - minus) / (2 * h)
    assert sum(float((g * d).sum()) for g, d in zip(found, moves)) == pytest.approx(expected, rel=1e-6)


def test_atoms_near_a_kink_are_reported() -> None:
    """With orthonormal atoms the code is soft(D^T y, l1): the third entry is made to sit at its kink."""
    D = torch.linalg.qr(torch.randn(5, 5)).Q
    y = (D @ torch.tensor([1.0, -0.5, 0.1 * (1 - 1e-6), 0.02, 0.0]))[None]
    codes = sparse_codes(y, D, ElasticNet(0.1, 0.0))
    assert torch.allclose(codes.values, torch.tensor([[0.9, -0.4, 0.0, 0.0, 0.0]]), atol=1e-9)
    assert codes.near_kinks.tolist() == [[False, False, True, False, False]]
    assert "1 codes in 1 samples are near a kink (atoms 2)" in codes.sentence
    assert "is the derivative" in sparse_codes(y, D, ElasticNet(0.05, 0.0)).sentence


def test_bad_input_is_refused() -> None:
    D = atoms()
    with pytest.raises(InputError, match="do not fit"):
        sparse_codes(torch.zeros(3, 19), D, ElasticNet())
    with pytest.raises(InputError, match="NaN"):
        sparse_codes(torch.full((3, 20), math.nan), D, ElasticNet())
    with pytest.raises(InputError, match="lambda"):
        ElasticNet(-0.1)
    with pytest.raises(InputError, match="l1 > 0"):
        ElasticNet(0.0)
    with pytest.raises(InputError, match="the dictionary is"):
        sparse_codes(torch.zeros(3, 20, dtype=torch.float32), D, ElasticNet())
    model = SparseClassifier(D, 3, ElasticNet())
    for labels in (torch.tensor([0, 3]), torch.tensor([0, -1]), torch.tensor([0, 1, 2])):
        with pytest.raises(InputError, match="as many labels from 0 to 2"):
            fit_classifier(model, torch.randn(2, 20), labels)
    twins = torch.cat([D[:, :1], D[:, :1]], 1)
    with pytest.raises(SingularError, match="linearly dependent"):
        sparse_codes(D[:, :1].mT, twins, ElasticNet(0.1, 0.0))


def test_codes_in_single_precision_and_of_no_samples() -> None:
    D, y = atoms(), torch.randn(7, 20)
    exact = sparse_codes(y, D, ElasticNet(0.3)).values
    found = sparse_codes(y.float(), D.float(), ElasticNet(0.3)).values
    assert torch.allclose(found.double(), exact, atol=1e-4)
    assert sparse_codes(y[:0], D, ElasticNet(0.3)).values.shape == (0, 30)


def planted(count: int, D: torch.Tensor, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(count, D.shape[1], generator=g) * (torch.rand(count, D.shape[1], generator=g) < 0.1)
    return a @ D.mT + 0.01 * torch.randn(count, D.shape[0], generator=g)


def test_the_unsupervised_dictionary_finds_planted_atoms() -> None:
    D = atoms(12, 12)
    found = learn_unsupervised(planted(800, D, 1), 12, ElasticNet(0.05, 1e-4), rounds=40)
    match = (found.mT @ D).abs().amax(0)
    assert float((match > 0.97).double().mean()) >= 0.75


def test_the_task_driven_dictionary_beats_the_unsupervised_one_where_the_task_is_a_detail() -> None:
    """Two classes that differ in the sign of one weak atom, hidden beside strong ones."""
    g = torch.Generator().manual_seed(0)
    D = unit_columns(torch.randn(12, 9, generator=g))
    labels = torch.randint(2, (600,), generator=g)
    strong = torch.randn(600, 8, generator=g) @ D[:, :8].mT
    y = strong + (0.6 * (2.0 * labels - 1))[:, None] * D[:, 8]
    problem = ElasticNet(0.2, 1e-2)
    model = SparseClassifier(learn_unsupervised(y[:400], 6, problem, rounds=10), 2, problem)
    fit_classifier(model, y[:400], labels[:400])
    before = model.error_rate(y[400:], labels[400:])
    history = learn_task_driven(model, y[:400], labels[:400], DictionarySchedule(epochs=8, batch=50, rate=2e-2))
    after = model.error_rate(y[400:], labels[400:])
    assert history.losses[-1] < history.losses[0]
    assert after < before - 0.1
    assert torch.allclose(model.dictionary.norm(dim=0), torch.ones(6))
