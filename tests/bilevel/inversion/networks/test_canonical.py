"""Canonical forms leave the map unchanged and identify it."""

import pytest
import torch

from bilevel.inversion.networks import LISTA, LISTACP, SupportSelection, TiLISTA, canonical_form, require_same_map
from bilevel.inversion.networks.canonical import as_lista, canonical_scale, untied
from bilevel.report import BilevelError, InputError


def disturbed(network):
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network


def operator() -> torch.Tensor:
    return torch.randn(12, 20) / 12**0.5


def test_unit_rows_and_the_same_map() -> None:
    network = disturbed(LISTA(operator(), 4, tied=False))
    found = canonical_form(network)
    y = torch.randn(50, 12)
    assert require_same_map(network, found, y) < 1e-12
    for k in range(3):
        assert torch.allclose(found.encode[k].norm(dim=1), torch.ones(20))
        assert found.thresholds[k].shape == (20,)


def test_rescaled_networks_have_one_canonical_form() -> None:
    network = disturbed(LISTA(operator(), 3, tied=False))
    rescaled = canonical_form(network)
    with torch.no_grad():  # another scaling of the hidden components, by hand
        scale = torch.rand(20) + 0.5
        rescaled.encode[0].mul_(scale[:, None])
        rescaled.repeat[0].mul_(scale[:, None])
        rescaled.thresholds[0].add_(scale.log())
        rescaled.repeat[1].div_(scale[None, :])
    y = torch.randn(10, 12)
    require_same_map(network, rescaled, y)
    a, b = canonical_form(network), canonical_form(rescaled)
    for p, q in zip(a.parameters(), b.parameters()):
        assert torch.allclose(p, q.expand_as(p), atol=1e-12)


def test_conversions_keep_the_map() -> None:
    A, y = operator(), torch.randn(30, 12)
    coupled = disturbed(LISTACP(A, 4))
    require_same_map(coupled, as_lista(coupled), y)
    tied = disturbed(LISTA(A, 4))
    require_same_map(tied, canonical_form(untied(tied)), y)
    shared = disturbed(TiLISTA(A, 4))
    scaled = canonical_scale(shared)
    require_same_map(shared, scaled, y)
    assert float((scaled.weight.detach() * A).sum(0).mean()) == pytest.approx(1.0)


def test_a_lista_cp_has_the_canonical_form_of_its_lista() -> None:
    coupled = disturbed(LISTACP(operator(), 3))
    require_same_map(coupled, canonical_form(coupled), torch.randn(9, 12))
    with pytest.raises(InputError, match="canonical_scale"):
        canonical_form(TiLISTA(operator(), 3))


def test_what_has_no_canonical_form_says_so() -> None:
    with pytest.raises(InputError, match="tied"):
        canonical_form(LISTA(operator(), 2))
    with pytest.raises(InputError, match="ranks magnitudes"):
        as_lista(LISTACP(operator(), 2, selection=SupportSelection()))
    a, b = (disturbed(LISTA(operator(), 2)) for _ in range(2))
    with pytest.raises(BilevelError, match="changed the map"):
        require_same_map(a, b, torch.randn(3, 12))
