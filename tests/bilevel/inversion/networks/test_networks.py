"""Unrolled networks: what they compute before and after small trainings, on data that fit and data that do not."""

import math
from pathlib import Path

import pytest
import torch

from bilevel.composite import ISTA, L1, Composite, LeastSquares
from bilevel.inversion.networks import (
    ALISTA,
    LISTA,
    LISTACP,
    GroupLISTA,
    HyperLISTA,
    LayerwiseSchedule,
    NeurallyAugmentedALISTA,
    SparseSignals,
    StepThresholdISTA,
    SupportSelection,
    TiLISTA,
    analytic_weight,
    coherence,
    load_weights,
    nmse_db,
    save_weights,
    train,
    tune,
)
from bilevel.inversion.networks.network import UnrolledNetwork
from bilevel.linalg.linear_map import Composed, Convolution, Matrix, gaussian_kernel
from bilevel.report import BilevelError, ConvergenceError, InputError


def dictionary(m: int = 30, n: int = 50) -> Matrix:
    matrix = torch.randn(m, n)
    return Matrix(matrix / matrix.norm(dim=0))


def networks(A: Matrix, depth: int = 4) -> dict[str, UnrolledNetwork]:
    chosen = SupportSelection(0.02, 0.1)
    return {
        "step-threshold": StepThresholdISTA(A, depth),
        "lista tied": LISTA(A, depth),
        "lista untied": LISTA(A, depth, tied=False),
        "lista-cp": LISTACP(A, depth),
        "lista-cp-ss": LISTACP(A, depth, selection=chosen),
        "tilista": TiLISTA(A, depth, selection=chosen),
        "alista": ALISTA(A, depth),
        "alista-ss": ALISTA(A, depth, selection=chosen),
        "hyperlista": HyperLISTA(A, depth, constants=(0.04, 0.02, 3.0)),
        "learned step": NeurallyAugmentedALISTA(A, depth, selection=chosen),
        "group": GroupLISTA(A, 5, depth),
        "group-ss": GroupLISTA(A, 5, depth, selection=SupportSelection(0.1, 0.3)),
    }


NAMES = list(networks(dictionary()))


@pytest.mark.parametrize("name", ["step-threshold", "lista tied", "lista untied", "lista-cp", "tilista"])
def test_before_training_it_is_ista(name: str) -> None:
    A = dictionary()
    y = torch.randn(3, 30)
    untrained = networks(A) | {"tilista": TiLISTA(A, 4)}
    problem = Composite(LeastSquares(A, y), L1(), 0.1)
    expected = [s.x for s, _ in zip(ISTA().iterates(problem, torch.zeros(3, 50)), range(4))]
    for found, x in zip(untrained[name].iterates(y), expected):
        assert torch.allclose(found, x, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_batch_do_not_see_each_other(name: str) -> None:
    A = dictionary()
    network = networks(A)[name]
    y = A(torch.randn(2, 3, 50) * (torch.rand(2, 3, 50) < 0.1))
    together = network(y)
    assert together.shape == (2, 3, 50)
    assert torch.allclose(together[1, 2], network(y[1, 2]), atol=1e-12)
    assert torch.equal(network(y, depth=2), network.iterates(y)[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_agrees_with_finite_differences(name: str) -> None:
    """Away from kinks every network is differentiable in all its parameters (c3 of HyperLISTA only moves a count)."""
    A = dictionary()
    network = networks(A)[name]
    y = A(torch.randn(5, 50) * (torch.rand(5, 50) < 0.1))
    goal = torch.randn(5, 50)

    def loss() -> torch.Tensor:
        return (network(y) * goal).sum()

    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    directions = [torch.randn_like(p) for p in parameters]
    if name == "hyperlista":
        directions[0][2] = 0.0
    h, values = 1e-7, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, directions):
                p.add_(sign * h * d)
            values.append(float(loss()))
    expected = (values[0] - values[1]) / (2 * h)
    found = sum(float((g * d).sum()) for g, d in zip(gradients, directions) if g is not None)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "gain"),
    [("step-threshold", 1.5), ("lista-cp-ss", 3.0), ("alista-ss", 3.0), ("learned step", 3.0), ("tilista", 3.0)],
)
def test_a_small_training_beats_ista(name: str, gain: float) -> None:
    A = dictionary(40, 60)
    network = networks(A, 5)[name]
    signals = SparseSignals(A, 0.08)
    x, y = signals.draw(300, torch.Generator().manual_seed(99))
    before = nmse_db(networks(A, 5)["step-threshold"](y), x)
    train(network, signals, LayerwiseSchedule(batch=32, alone=15, together=0, final=60, rate=0.05, matrix_rate=5e-3))
    assert nmse_db(network(y), x) < before - gain


def test_hyperlista_is_tuned_by_three_numbers() -> None:
    A = dictionary(60, 100)
    x, y = SparseSignals(A, 0.05).draw(150, torch.Generator().manual_seed(5))
    network = HyperLISTA(A, 8, constants=(0.1, 0.01, 3.0))
    before = nmse_db(network(y), x)
    after = tune(network, x, y, evaluations=60)
    assert sum(p.numel() for p in network.parameters()) == 3
    assert after == pytest.approx(nmse_db(network(y), x), abs=1e-9)
    assert after < before - 10


def test_hyperlista_learns_from_its_defaults_whatever_the_units() -> None:
    for unit in (1e-6, 1.0, 1e6):
        A = Matrix(unit * dictionary(60, 100).entries)
        signals = SparseSignals(A, 0.05)
        x, y = signals.draw(150, torch.Generator().manual_seed(5))
        network = HyperLISTA(A, 8)
        before = nmse_db(network(y), x)
        assert before < -10
        train(network, signals, LayerwiseSchedule(batch=32, alone=0, together=0, final=40, rate=5e-3))
        assert nmse_db(network(y), x) < before


def test_networks_whose_thresholds_leave_nothing_say_so() -> None:
    A = dictionary(60, 100)
    signals = SparseSignals(A, 0.05)
    x, y = signals.draw(50, torch.Generator().manual_seed(5))
    quick = LayerwiseSchedule(batch=32, alone=2, together=0, final=2)
    for network in (
        HyperLISTA(A, 4, constants=(5.0, 0.05, 3.0)),
        ALISTA(A, 4, threshold=50.0),
        LISTA(A, 4, threshold=1e3),
    ):
        with pytest.raises(BilevelError, match="returns zero for every signal"):
            train(network, signals, quick)
    with pytest.raises(BilevelError, match="start from smaller ones"):
        tune(HyperLISTA(A, 4, constants=(500.0, 0.05, 3.0)), x, y, evaluations=20)
    with pytest.raises(InputError, match="all zero"):
        tune(HyperLISTA(A, 4), 0 * x, y)
    with pytest.raises(InputError, match="training signals have shape"):
        tune(HyperLISTA(A, 4), x[:, :-1], y)


def test_constants_that_blow_up_are_bad_but_no_error_of_the_search() -> None:
    A = dictionary(60, 100)
    x, y = SparseSignals(A, 0.05).draw(50, torch.Generator().manual_seed(5))
    network = HyperLISTA(A, 16, constants=(1e-3, 0.5, 100.0))
    tune(network, x, y, evaluations=80)
    assert nmse_db(network(y), x) < 0


def test_analytic_weights_minimise_the_frobenius_norm() -> None:
    A = dictionary(12, 20).entries
    W = analytic_weight(A)
    assert torch.allclose((W * A).sum(0), torch.ones(20))
    best = (W.mT @ A).square().sum()
    for _ in range(20):
        d = torch.randn(12, 20)
        d = d - A * (A * d).sum(0) / A.square().sum(0)
        assert float(((W + 0.01 * d).mT @ A).square().sum()) > float(best)
    assert coherence(W, A) < coherence(A, A)


@pytest.mark.parametrize("shape", [(12, 4, 20), (15, 8, 8), (6, 3, 9)])
def test_analytic_weights_of_operators_without_full_row_rank(shape: tuple[int, int, int]) -> None:
    """Optimal: moving w_i along any direction that keeps w_i . a_i = 1 does not lower |W^T A|_F."""
    m, rank, n = shape
    A = torch.randn(m, rank) @ torch.randn(rank, n)
    W = analytic_weight(A)
    assert torch.allclose((W * A).sum(0), torch.ones(n))
    slope = A @ (A.mT @ W)  # gradient of |W^T A|^2 / 2; it must be along a_i
    along = A * (slope * A).sum(0) / A.square().sum(0)
    assert torch.allclose(slope, along, atol=1e-8)
    unseen = A.clone()
    unseen[:, 2] = 0.0
    with pytest.raises(InputError, match=r"1 unknowns have a zero column in the operator \(the first is 2\)"):
        analytic_weight(unseen)


def test_groups_of_one_are_the_elementwise_network() -> None:
    A = dictionary()
    y = torch.randn(4, 30)
    chosen = SupportSelection(0.02, 0.1)
    group, plain = GroupLISTA(A, 1, 5, threshold=0.2, selection=chosen), ALISTA(A, 5, threshold=0.2, selection=chosen)
    with torch.no_grad():
        for k in range(5):
            step, log_threshold = 0.5 + 0.1 * k, torch.tensor(-1.0 - 0.1 * k)
            group.blocks[k].mul_(step)
            plain.steps[k].fill_(step)
            group.thresholds[k].copy_(log_threshold)
            plain.thresholds[k].copy_(log_threshold)
    assert torch.allclose(group(y), plain(y), atol=1e-13)


def test_groups_are_found_better_as_groups() -> None:
    A = dictionary(40, 60)
    signals = SparseSignals(A, 0.1, group=5)
    x, y = signals.draw(300, torch.Generator().manual_seed(99))
    schedule = LayerwiseSchedule(batch=32, alone=20, together=0, final=60, rate=0.05, matrix_rate=5e-3)
    results = []
    for size in (1, 5):
        network = GroupLISTA(A, size, 5, threshold=0.3)
        train(network, signals, schedule)
        results.append(nmse_db(network(y), x))
    assert results[1] < results[0] - 1.5


def test_a_convolution_is_an_operator_like_any_other() -> None:
    A = Convolution(gaussian_kernel(0.8, 2), (8, 9))
    x = torch.randn(2, 8, 9)
    network = StepThresholdISTA(A, 30, threshold=1e-6)
    assert float((network(A(x)).detach() - x).norm()) < 0.7 * float((A.adjoint(A(x)) - x).norm())


@pytest.mark.parametrize("name", NAMES)
def test_unknowns_may_be_pictures(name: str) -> None:
    """The same matrix between pictures and between vectors: the same network."""
    flat = dictionary(12, 20)
    shaped = Matrix(flat.entries, domain=(4, 5), range=(3, 4))
    y = torch.randn(2, 3, 12)
    torch.manual_seed(1)
    expected = networks(flat)[name](y)
    torch.manual_seed(1)
    found = networks(shaped)[name](y.reshape(2, 3, 3, 4))
    assert torch.allclose(found, expected.reshape(2, 3, 4, 5), atol=1e-12)
    assert networks(shaped)[name](torch.zeros(0, 3, 4)).shape == (0, 4, 5)


def test_training_on_pictures_of_blurred_spikes() -> None:
    A = Convolution(gaussian_kernel(0.6, 1), (5, 6))
    signals = SparseSignals(A, 0.1, snr_db=40.0)
    network = ALISTA(A, 3, threshold=0.3)
    x, y = signals.draw(200, torch.Generator().manual_seed(7))
    assert x.shape == y.shape == (200, 5, 6)
    before = nmse_db(network(y), x)
    train(network, signals, LayerwiseSchedule(batch=32, alone=0, together=0, final=60, rate=0.05))
    assert nmse_db(network(y), x) < before - 3


def test_moving_a_network_leaves_the_users_operator_alone() -> None:
    A = Composed(dictionary(), Matrix(torch.eye(50)))
    network = ALISTA(A, 3, weight=dictionary())
    assert network.operator.inner.entries.data_ptr() == A.inner.entries.data_ptr()
    network.to(torch.float32)
    assert network.operator.inner.entries.dtype == torch.float32
    assert A.outer.entries.dtype == A.inner.entries.dtype == torch.float64


def test_training_is_reproducible_and_resumes(tmp_path: Path) -> None:
    A = dictionary(15, 20)
    signals = SparseSignals(A)
    schedule = LayerwiseSchedule(batch=16, alone=5, together=3, final=10, seed=3)
    whole, again, cut = (ALISTA(A, 3) for _ in range(3))
    losses = train(whole, signals, schedule)
    assert losses == train(again, signals, schedule)

    file = tmp_path / "run" / "checkpoint.pt"

    class Interrupted:
        calls = 0

        def draw(self, count, generator):
            self.calls += 1
            if self.calls > 12:
                raise KeyboardInterrupt
            return signals.draw(count, generator)

    with pytest.raises(KeyboardInterrupt):
        train(cut, Interrupted(), schedule, checkpoint=file)
    resumed = ALISTA(A, 3)
    assert train(resumed, signals, schedule, checkpoint=file) == losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))
    with pytest.raises(InputError, match="another schedule"):
        train(ALISTA(A, 3), signals, LayerwiseSchedule(seed=4), checkpoint=file)
    with pytest.raises(InputError, match="another network, a ALISTA"):
        train(ALISTA(A, 4), signals, schedule, checkpoint=file)
    other = dictionary(15, 20)
    with pytest.raises(InputError, match="another operator"):
        train(ALISTA(other, 3), SparseSignals(other), schedule, checkpoint=file)
    file.write_text("no checkpoint")
    with pytest.raises(InputError, match="not a checkpoint"):
        train(ALISTA(A, 3), signals, schedule, checkpoint=str(file))


def test_weights_know_what_made_them(tmp_path: Path) -> None:
    A = dictionary(15, 20)
    file = tmp_path / "alista.pt"
    network = ALISTA(A, 3)
    with torch.no_grad():
        network.steps[1].fill_(0.7)
    save_weights(network, str(file), LayerwiseSchedule(seed=11), command="train alista")
    fresh = ALISTA(A, 3)
    made_by = load_weights(fresh, file)
    assert float(fresh.steps[1].detach()) == 0.7
    assert made_by.schedule["seed"] == 11
    assert made_by.command == "train alista"
    assert set(made_by.versions) == {"bilevel", "torch", "numpy"}
    with pytest.raises(InputError, match="another operator"):
        load_weights(ALISTA(dictionary(15, 20), 3), file)
    with pytest.raises(InputError, match="another operator"):
        load_weights(ALISTA(dictionary(16, 20), 3), file)
    with pytest.raises(InputError, match="3 layers"):
        load_weights(ALISTA(A, 4), file)
    with pytest.raises(InputError, match="holds a ALISTA"):
        load_weights(StepThresholdISTA(A, 3), file)
    with pytest.raises(InputError, match="no file"):
        load_weights(network, tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="not a file of weights"):
        load_weights(network, tmp_path / "text.pt")


def test_float32_and_float64_agree() -> None:
    A = dictionary()
    network = ALISTA(A, 4)
    y = torch.randn(3, 30)
    double = network(y)
    single = network.to(torch.float32)(y.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_bad_data_get_a_sentence(name: str) -> None:
    network = networks(dictionary())[name]
    with pytest.raises(
        InputError, match=r"the data have shape \(2, 29\), but the operator's response has shape \(\*batch, 30\)"
    ):
        network(torch.zeros(2, 29))
    with pytest.raises(InputError, match="NaN"):
        network(torch.full((30,), math.nan))


def test_bad_settings_get_a_sentence() -> None:
    A = dictionary()
    with pytest.raises(InputError, match="at least one layer"):
        ALISTA(A, 0)
    with pytest.raises(InputError, match="threshold"):
        ALISTA(A, 2, threshold=-0.1)
    with pytest.raises(InputError, match="groups of 7"):
        GroupLISTA(A, 7)
    with pytest.raises(InputError, match="fractions"):
        SupportSelection(1.2, 13)
    with pytest.raises(InputError, match="the weight maps"):
        ALISTA(A, 2, weight=dictionary(30, 40))
    with pytest.raises(InputError, match="density"):
        SparseSignals(A, 0.0)
    with pytest.raises(InputError, match="groups of 0"):
        SparseSignals(A, group=0)
    with pytest.raises(InputError, match="NaN"):
        SparseSignals(A, snr_db=math.nan)
    with pytest.raises(InputError, match="has 2 layers, 3 were asked for"):
        ALISTA(A, 2)(torch.zeros(30), depth=3)
    with pytest.raises(InputError, match="the operator is zero"):
        StepThresholdISTA(torch.zeros(3, 4))
    with pytest.raises(InputError, match="fall"):
        ALISTA(A, 2, fall=0.0)
    with pytest.raises(InputError, match="but the operator is"):
        ALISTA(A, 2)(torch.zeros(30, dtype=torch.float32))
    for network in (LISTA, LISTACP, TiLISTA):
        with pytest.raises(InputError, match=r"the weight has shape \(5, 5\)"):
            network(A, 2, weight=torch.eye(5))
    with pytest.raises(InputError, match="rates"):
        LayerwiseSchedule(rate=-1.0)
    with pytest.raises(InputError, match="batch"):
        LayerwiseSchedule(batch=0)
    with pytest.raises(InputError, match="the training signals have shape"):
        train(ALISTA(A, 2), SparseSignals(Matrix(torch.randn(30, 51))), LayerwiseSchedule(batch=2))
    with pytest.raises(InputError, match="the data have shape"):
        train(ALISTA(A, 2), SparseSignals(dictionary(29, 50)), LayerwiseSchedule(batch=2))
    with pytest.raises(InputError, match="the truth is zero"):
        nmse_db(torch.ones(3), torch.zeros(3))
    with pytest.raises(InputError, match="the estimate has shape"):
        nmse_db(torch.ones(2, 3), torch.ones(3))


def test_an_unstable_network_is_reported_and_not_returned() -> None:
    A = dictionary()
    network = StepThresholdISTA(A, 16)
    with torch.no_grad():
        for step in network.steps:
            step.mul_(30.0)
    with pytest.raises(ConvergenceError, match="unstable on 4 of 4 samples"):
        network(torch.randn(4, 30))


def test_a_diverging_training_is_reported() -> None:
    A = dictionary(15, 20)
    with pytest.raises(BilevelError, match="training diverged"):
        train(
            LISTA(A, 3),
            SparseSignals(A),
            LayerwiseSchedule(batch=8, alone=0, together=0, final=50, matrix_rate=1e300, rate=1e300),
        )


def test_weights_are_written_whole_never_over_others_and_never_read_damaged(tmp_path: Path) -> None:
    A, file = dictionary(), tmp_path / "weights.pt"
    network, schedule = ALISTA(A, 3), LayerwiseSchedule()
    save_weights(network, file, schedule)
    with pytest.raises(InputError, match="exists"):
        save_weights(network, file, schedule)
    save_weights(network, file, schedule, overwrite=True)
    assert [f.name for f in tmp_path.iterdir()] == ["weights.pt"]
    good = file.read_bytes()
    expected = [p.detach().clone() for p in network.parameters()]
    refused = 0
    for place in range(7, len(good), max(1, len(good) // 150)):
        file.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        try:
            load_weights(network, file)
        except InputError:
            refused += 1
        assert all(torch.equal(a, b) for a, b in zip(expected, network.parameters()))
    assert refused > 20
    for length in (0, 10, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(InputError, match="damaged"):
            load_weights(network, file)
