"""The hierarchical loss: every term by hand, gradients by finite differences."""

import numpy as np
import pytest
import torch

from lesionary.errors import UsageError
from trainers.triplet.cues import ROLES
from trainers.triplet.targets import MARGINS, check_margins, hierarchical_loss

TERMS = {
    "type": {"type": "BE"},
    "location": {"location": "BD"},
    "type+location": {"location": "BD", "type": "DE"},
    "type+location+size": {"size": "BC", "location": "CD", "type": "DE"},
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5}
"""Half precision is widened before anything is computed, so it is compared with what it holds."""


def unit_vectors(cues, sequences=6, dimension=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn((sequences, len(ROLES[cues]), dimension), generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=2).to(dtype)


def by_hand(embeddings, margins, cues, rows=None):
    margin = dict(zip(("size", "location", "type"), margins, strict=True))
    parts = {}
    for term, (nearer, farther) in TERMS[cues].items():
        total = 0.0
        for s, sequence in enumerate(embeddings.tolist()):
            place = {role: ROLES[cues].index(role) for role in ("A", nearer, farther)}
            if rows is not None and rows[s][place[nearer]] == rows[s][place[farther]]:
                continue
            anchor = sequence[0]
            squares = [
                sum((a - b) ** 2 for a, b in zip(anchor, sequence[place[role]], strict=True))
                for role in (nearer, farther)
            ]
            total += max(0.0, squares[0] - squares[1] + margin[term])
        parts[term] = total / (2 * len(embeddings))
    return parts


@pytest.mark.parametrize("cues", ROLES)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_every_term_is_what_a_loop_over_triplets_says(cues, dtype):
    for seed, margins in enumerate((MARGINS, (0.05, 0.5, 2.5), (0.9, 1.0, 1.1))):
        embeddings = unit_vectors(cues, seed=seed, dtype=dtype)
        parts = hierarchical_loss(embeddings, margins, cues)
        expected = by_hand(embeddings.double(), margins, cues)
        assert parts.keys() == expected.keys()
        for term, part in parts.items():
            assert part.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
            assert float(part) == pytest.approx(expected[term], abs=TOLERANCES[dtype])


def test_terms_of_lesions_that_do_not_exist_count_nothing():
    cues = "type+location+size"
    embeddings = unit_vectors(cues, sequences=4)
    rows = np.array([[0, 1, 2, 3, 4], [0, 1, 1, 3, 4], [0, 1, 2, 2, 4], [0, 1, 1, 1, 4]])
    expected = by_hand(embeddings, (0.9, 1.0, 1.1), cues, rows)
    for given in (rows, torch.as_tensor(rows)):
        parts = hierarchical_loss(embeddings, (0.9, 1.0, 1.1), cues, given)
        assert {term: float(part) for term, part in parts.items()} == pytest.approx(expected)
    # The repeated lesion's own embedding (another augmentation of it) gets no gradient from the term left out.
    embeddings.requires_grad_(requires_grad=True)
    hierarchical_loss(embeddings, (4.1, 4.2, 4.3), cues, rows)["size"].backward()
    assert embeddings.grad[1].abs().sum() == 0
    assert embeddings.grad[0].abs().sum() > 0


@pytest.mark.parametrize("cues", ROLES)
def test_gradients_agree_with_finite_differences(cues):
    rows = None
    if cues == "type+location+size":
        rows = np.array([[0, 1, 2, 3, 4], [0, 1, 1, 3, 4], [0, 1, 2, 2, 4]])
    embeddings = unit_vectors(cues, sequences=3, dimension=4).requires_grad_(requires_grad=True)
    names = list(TERMS[cues])
    # Wide margins keep every hinge on its slope; the paper's leave some at rest. Neither sits on the kink.
    for margins in ((4.1, 4.2, 4.3), MARGINS):
        assert torch.autograd.gradcheck(
            lambda x, margins=margins: tuple(hierarchical_loss(x, margins, cues, rows)[name] for name in names),
            (embeddings,),
        )


def test_a_fulfilled_hierarchy_costs_nothing_and_moves_nothing():
    angles = torch.tensor([0.0, 0.1, 0.8, 1.5, 3.0], dtype=torch.float64)
    embeddings = torch.stack((angles.cos(), angles.sin()), dim=1)[None].requires_grad_(requires_grad=True)
    parts = hierarchical_loss(embeddings)
    sum(parts.values()).backward()
    assert [float(part.detach()) for part in parts.values()] == [0, 0, 0]
    assert embeddings.grad.abs().sum() == 0


def test_a_collapsed_network_costs_half_of_each_margin():
    parts = hierarchical_loss(torch.ones((3, 5, 4)) / 2)
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(
        {"size": 0.05, "location": 0.1, "type": 0.2}
    )


def test_two_shares_of_a_batch_average_to_the_whole():
    embeddings = unit_vectors("type+location+size", sequences=8)
    rows = np.arange(40).reshape(8, 5)
    rows[2, 2] = rows[2, 1]
    whole = hierarchical_loss(embeddings, rows=rows)
    halves = [hierarchical_loss(embeddings[rank::2], rows=rows[rank::2]) for rank in (0, 1)]
    for term, part in whole.items():
        assert float(part) == pytest.approx(float(halves[0][term] + halves[1][term]) / 2)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 4, 3), (5, 3)])
def test_embeddings_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match=r"are not \[sequences, 5, dimension\]"):
        hierarchical_loss(torch.zeros(shape))


@pytest.mark.parametrize(
    "margins", [(0.1, 0.1, 0.4), (0.0, 0.2, 0.4), (0.1, 0.2, float("nan")), (0.1, 0.2), (0.2, 0.1, 0.4)]
)
def test_margins_that_do_not_rise_are_refused(margins):
    with pytest.raises(UsageError, match="rising numbers"):
        check_margins(margins)
    check_margins(MARGINS)
