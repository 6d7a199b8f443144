"""Sequences A–E against plain loops: conditions, evenness, repeatability, fallbacks and refusals."""

import tracemalloc
from collections import Counter
from dataclasses import asdict, replace
from json import dumps

import numpy as np
import pytest
from scipy.stats import chisquare
from triplet_oracle import roles_of, small_set

from lesionary.errors import TrainingError, UsageError
from trainers.learner import Share
from trainers.triplet.cues import ROLES, SamplingSettings
from trainers.triplet.sampling import SequenceSampler

WIDE = SamplingSettings(
    location_low=0.15, location_high=0.2, size_low=0.08, size_high=0.12, adapt=False, balance="none"
)
LEAST_P = 1e-3
"""Of the chi-square tests: seeds are fixed, so a test that passes keeps passing."""


def draws(sampler, steps, count=50):
    return np.concatenate([sampler.draw(step, count) for step in range(steps)])


@pytest.mark.parametrize("cues", ROLES)
@pytest.mark.parametrize("other_patient", [True, False])
@pytest.mark.parametrize("balance", ["none", "type"])
@pytest.mark.parametrize("hard", [1, 3])
def test_every_drawn_row_fulfils_its_conditions(cues, other_patient, balance, hard):
    hard = hard if "location" in cues else 1
    for seed in range(3):
        lesions = small_set(seed)
        settings = replace(WIDE, cues=cues, other_patient=other_patient, balance=balance, hard_candidates=hard)
        sampler = SequenceSampler(*lesions, settings, seed)
        allowed = [roles_of(anchor, *lesions, sampler) for anchor in range(70)]
        drawn = draws(sampler, 20)
        assert drawn.shape == (1000, len(ROLES[cues]))
        for sequence in drawn:
            anchor, rest = sequence[0], sequence[1:]
            before = None
            for role, row in zip(ROLES[cues][1:], rest, strict=True):
                may = allowed[anchor][role]
                assert row in may if may else row == before, (role, sequence)
                assert row != anchor
                before = row
        anchors = {row for row, may in enumerate(allowed) if may is not None}
        assert set(drawn[:, 0].tolist()) == anchors
        assert sampler.coverage().anchors == len(anchors)


def test_every_lesion_that_fits_is_reached():
    lesions = small_set(1, count=30, patients=6)
    sampler = SequenceSampler(*lesions, WIDE, 0)
    seen = [{role: set() for role in "BCDE"} for _ in range(30)]
    for sequence in draws(sampler, 150):
        for role, row in zip("BCDE", sequence[1:], strict=True):
            seen[sequence[0]][role].add(int(row))
    for anchor in {int(row) for row in draws(sampler, 4)[:, 0]}:
        allowed = roles_of(anchor, *lesions, sampler)
        for role in "BCDE":
            if allowed[role]:
                assert seen[anchor][role] == allowed[role], (anchor, role)


def check_even(rows, among, shares=None):
    counts = Counter(rows)
    assert set(counts) <= set(among)
    if len(among) == 1:
        return
    expected = None if shares is None else np.array(shares) * len(rows)
    assert chisquare([counts[row] for row in among], expected).pvalue > LEAST_P


@pytest.mark.parametrize("hard", [1, 2])
def test_roles_are_drawn_evenly_over_what_fits(hard):
    lesions = small_set(5, count=40, types=2, patients=6)
    sampler = SequenceSampler(*lesions, replace(WIDE, hard_candidates=hard), 7)
    drawn = draws(sampler, 300)
    anchors = sorted(row for row in range(40) if roles_of(row, *lesions, sampler) is not None)
    check_even(drawn[:, 0].tolist(), anchors)
    for anchor in anchors[:6]:
        allowed = roles_of(anchor, *lesions, sampler)
        mine = drawn[drawn[:, 0] == anchor]
        for column, role in enumerate("BCDE"[: 2 if hard > 1 else 4], start=1):
            if allowed[role]:
                check_even(mine[:, column].tolist(), sorted(allowed[role]))


def test_a_rare_far_lesion_is_drawn_as_evenly_as_a_common_one():
    # Two far lesions among 300: most tries miss them, and the exact list must take over without favouring one.
    count = 302
    types = np.zeros(count, dtype=int)
    types[-1] = 1
    locations = np.full((count, 3), 0.5)
    locations[299:301, 2] = (0.9, 0.95)
    sampler = SequenceSampler(
        types, locations, np.full((count, 2), 10.0), np.arange(count), replace(WIDE, cues="type+location"), 0
    )
    drawn = draws(sampler, 40)
    near = drawn[np.isin(drawn[:, 0], np.arange(299))]
    check_even(near[:, 2].tolist(), [299, 300])


def test_balanced_types_share_anchors_and_negatives_evenly():
    rng = np.random.default_rng(0)
    types = np.repeat([0, 1, 2], [60, 20, 6])
    sampler = SequenceSampler(
        types, rng.uniform(0.4, 0.6, (86, 3)), rng.uniform(5, 30, (86, 2)), np.arange(86),
        SamplingSettings(cues="type", balance="type"), 3,
    )  # fmt: skip
    drawn = draws(sampler, 60)
    anchor_types = types[drawn[:, 0]]
    check_even(anchor_types.tolist(), [0, 1, 2])
    check_even(drawn[anchor_types == 0, 0].tolist(), range(60))
    negatives = drawn[anchor_types == 0, 2]
    check_even(types[negatives].tolist(), [1, 2])
    check_even(negatives[types[negatives] == 2].tolist(), range(80, 86))


def test_unbalanced_negatives_follow_the_lesions():
    types = np.repeat([0, 1, 2], [60, 20, 6])
    plain = np.full((86, 3), 0.5), np.full((86, 2), 9.0), np.arange(86)
    sampler = SequenceSampler(types, *plain, SamplingSettings(cues="type", balance="none"), 3)
    drawn = draws(sampler, 60)
    check_even(types[drawn[:, 0]].tolist(), [0, 1, 2], [60 / 86, 20 / 86, 6 / 86])
    check_even(drawn[types[drawn[:, 0]] == 1, 2].tolist(), [*range(60), *range(80, 86)])


def test_hard_candidates_are_the_nearest_of_those_drawn():
    lesions = small_set(2, count=40)
    types, locations = lesions[:2]
    sampler = SequenceSampler(*lesions, replace(WIDE, cues="type+location", hard_candidates=1000), 0)
    for anchor, _, far, other in draws(sampler, 2):
        away = np.linalg.norm(locations - locations[anchor], axis=1)
        assert far == min(roles_of(anchor, *lesions, sampler)["D"], key=lambda row: away[row])
        assert other == min(np.flatnonzero(types != types[anchor]), key=lambda row: away[row])


def test_sequences_depend_on_seed_and_step_alone():
    lesions = small_set(3)
    first, second = (SequenceSampler(*lesions, WIDE, 11) for _ in range(2))
    expected = [first.draw(step, 24) for step in range(5)]
    for step in (4, 0, 2, 2, 1, 3):  # in any order, any number of times
        assert np.array_equal(second.draw(step, 24), expected[step])
    assert not np.array_equal(expected[0], expected[1])
    assert not np.array_equal(SequenceSampler(*lesions, WIDE, 12).draw(0, 24), expected[0])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_workers_share_one_batch(world):
    lesions = small_set(3)
    batch = SequenceSampler(*lesions, WIDE, 1).draw(5, 24)
    together = np.empty_like(batch)
    for rank in range(world):
        worker = SequenceSampler(*lesions, WIDE, 1)
        together[rank::world] = Share(rank, world).of(worker.draw(5, 24))
    assert np.array_equal(together, batch)


def test_lesions_without_what_the_cues_need_are_left_out_and_counted():
    types, locations, sizes, patients = small_set(4)
    types[:5], locations[5:9, 1], sizes[9:12, 0] = -1, np.nan, np.nan
    sampler = SequenceSampler(types, locations, sizes, patients, WIDE, 0)
    assert draws(sampler, 20).min() >= 12
    coverage = sampler.coverage()
    assert (coverage.lesions, coverage.taking_part) == (70, 58)
    assert (coverage.without_type, coverage.without_location, coverage.without_size) == (5, 4, 3)
    # The location alone asks for neither type nor size.
    by_place = SequenceSampler(types, locations, sizes, patients, replace(WIDE, cues="location"), 0)
    assert by_place.coverage().taking_part == 66


def line_of_lesions(*lesions):
    """(type, z, size in mm, patient) each; other coordinates equal."""
    types, depth, size, patients = (np.array(column) for column in zip(*lesions, strict=True))
    locations = np.full((len(types), 3), 0.5)
    locations[:, 2] = depth
    return types, locations, np.stack((size, size), axis=1).astype(float), patients


NARROW = SamplingSettings(adapt=False, balance="none")


def test_a_missing_c_is_sought_between_the_thresholds_then_repeats_b():
    far, other = (0, 0.9, 10, 5), (1, 0.5, 10, 6)
    pair = [(0, 0.5, 10, 0), (0, 0.501, 10, 1)]
    relaxed = line_of_lesions(*pair, (0, 0.55, 60, 2), far, other)
    sampler = SequenceSampler(*relaxed, NARROW, 0)
    assert {tuple(row[2:4]) for row in draws(sampler, 4) if row[0] == 0} == {(2, 3)}
    coverage = sampler.coverage()
    assert (coverage.share_c, coverage.share_c_relaxed, coverage.share_without_c) == (0, 1, 0)
    # Another organ's pair has a C; this one has none within the high threshold.
    second = [(1, 0.5, 10, 0), (1, 0.501, 10, 1), (1, 0.502, 60, 2), (1, 0.9, 10, 3)]
    sampler = SequenceSampler(*line_of_lesions(*pair, (0, 0.65, 60, 2), far, *second), NARROW, 0)
    mine = [row for row in draws(sampler, 4) if row[0] == 0]
    assert {(row[1], row[2]) for row in mine} == {(1, 1)}
    assert {row[3] for row in mine} == {2, 3}
    coverage = sampler.coverage()
    assert (coverage.share_c, coverage.share_c_relaxed, coverage.share_without_c) == (0.5, 0, 0.5)


def test_a_missing_d_repeats_c():
    with_d = [(1, 0.5, 10, 0), (1, 0.501, 10, 1), (1, 0.502, 60, 2), (1, 0.9, 10, 3)]
    compact = [(0, 0.5, 10, 0), (0, 0.501, 10, 1), (0, 0.502, 60, 2)]
    sampler = SequenceSampler(*line_of_lesions(*compact, *with_d), NARROW, 0)
    assert {tuple(row[2:4]) for row in draws(sampler, 4) if row[0] == 0} == {(2, 2)}
    assert (sampler.coverage().share_d, sampler.coverage().share_without_d) == (0.5, 0.5)


def test_lesions_exactly_on_a_threshold_are_neither_near_nor_far_and_anchors_agree():
    # Grid steps of the threshold itself: rounding decides, and must decide the same for anchors and for drawing.
    rng = np.random.default_rng(0)
    locations = rng.integers(0, 6, (80, 3)) * 0.02 + 0.3
    sizes = rng.integers(1, 8, (80, 2)) * 2.0
    lesions = rng.integers(2, size=80), locations, sizes, rng.integers(10, size=80)
    for factor in (2.0, 3.0, 3.5):
        settings = replace(
            NARROW, location_low=0.02 * factor, size_low=0.02 * factor, size_high=0.08, location_high=0.08
        )
        sampler = SequenceSampler(*lesions, settings, 0)
        anchors = {row for row in range(80) if roles_of(row, *lesions, sampler) is not None}
        assert sampler.coverage().anchors == len(anchors)
        assert set(draws(sampler, 20)[:, 0].tolist()) <= anchors


def test_thresholds_widen_until_the_wanted_share_has_a_positive():
    lesions = small_set(8, count=200, patients=40)
    for share in (0.3, 0.8, 0.95):
        sampler = SequenceSampler(*lesions, SamplingSettings(anchor_share=share), 0)
        coverage, used = sampler.coverage(), sampler.thresholds
        assert coverage.anchors >= share * 200
        assert used.factor > 1
        assert used.location_low == pytest.approx(0.02 * used.factor)
        assert used.size_low == pytest.approx(0.02 * used.factor)
        # The band between low and high keeps its width.
        assert used.location_high - used.location_low == pytest.approx(0.08)
        assert used.size_high - used.size_low == pytest.approx(0.08)
        # A little narrower, and the share is missed.
        narrower = SamplingSettings(
            adapt=False, location_low=used.location_low * (1 - 1e-6), size_low=used.size_low * (1 - 1e-6),
            location_high=used.location_high, size_high=used.size_high,
        )  # fmt: skip
        assert SequenceSampler(*lesions, narrower, 0).coverage().anchors < share * 200


def test_thresholds_that_serve_enough_lesions_stay_as_given():
    lesions = small_set(8, count=200, patients=40)
    sampler = SequenceSampler(*lesions, replace(WIDE, adapt=True, anchor_share=0.05), 0)
    given = asdict(sampler.thresholds)
    assert given == {
        "location_low": 0.15, "location_high": 0.2, "size_low": 0.08, "size_high": 0.12, "factor": 1.0,
    }  # fmt: skip


def test_the_record_is_json_and_says_what_was_used():
    sampler = SequenceSampler(*small_set(8), SamplingSettings(), 4)
    record = sampler.record()
    assert record["thresholds"]["factor"] == sampler.thresholds.factor
    assert record["coverage"]["anchors_by_type"].keys() == {"bone", "abdomen", "mediastinum"}
    assert '"seed": 4' in dumps(record)


def ten(**changed):
    lesions = {
        "types": np.arange(10) % 2,
        "locations": np.random.default_rng(0).uniform(0, 1, (10, 3)),
        "sizes_mm": np.random.default_rng(1).uniform(5, 50, (10, 2)),
        "patients": np.arange(10) % 5,
    }
    return lesions | changed


SAME = {"locations": np.full((10, 3), 0.5), "sizes_mm": np.full((10, 2), 9.0)}


@pytest.mark.parametrize(
    ("lesions", "settings", "said"),
    [
        (ten(types=np.full(10, 3)), {}, "all 10 lesions that could take part are of one type (liver); label"),
        (ten(types=np.full(10, -1)), {}, "not one of 10 lesions has a type; label them first"),
        (ten(patients=np.zeros(10, int)), {}, "all lesions are of one patient, and a positive must be of another; add"),
        (ten(locations=np.full((10, 3), np.nan)), {}, "not one of 10 lesions has a location; locate them first"),
        (ten(sizes_mm=np.full((10, 2), np.nan)), {}, "not one of 10 lesions has a size; train with"),
        (ten(patients=np.arange(10) % 2), {}, "no lesion has a positive: not one pair is of another patient, of"),
        (ten(), {"adapt": False}, "within 0.02 in size; set adapt to true or widen the low thresholds"),
        (ten(**SAME), {}, "none of 10 lesions has one near it that differs in size by more than 10 mm"),
        (ten(**SAME), {"cues": "type+location"}, "none of 10 lesions has one of the same type farther away than 0.1"),
        (ten(**SAME), {"cues": "location"}, "none of 10 lesions has one farther away than 0.1"),
        (ten(**SAME, patients=np.zeros(10, int)), {}, "all lesions are of one patient"),
        (
            ten(types=np.array([0, 1] + [-1] * 8), locations=np.array([[np.nan] * 3] * 2 + [[0.5] * 3] * 8)),
            {"cues": "type+location"},
            "not one of 10 lesions has all of type, location; complete them",
        ),
    ],
)  # fmt: skip
def test_data_that_cannot_supervise_are_refused_in_one_line(lesions, settings, said):
    with pytest.raises(TrainingError) as refused:
        SequenceSampler(**lesions, settings=SamplingSettings(**settings), seed=0)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_lesions_at_all_are_refused():
    with pytest.raises(TrainingError, match="not one of 0 lesions has a type"):
        SequenceSampler(*(np.empty((0, *shape)) for shape in ((), (3,), (2,), ())), SamplingSettings(), 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cues": "size"}, {"balance": "patient"}, {"location_low": 0.0}, {"location_low": 0.2}, {"size_low": 0.3},
        {"size_high": float("nan")}, {"size_unit_mm": -1}, {"anchor_share": 0}, {"anchor_share": 1.1},
        {"hard_candidates": 0}, {"cues": "type", "hard_candidates": 2},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(UsageError, match="triplet sampling: .* must be "):
        SamplingSettings(**wrong)


def test_columns_that_do_not_fit_together_are_refused():
    with pytest.raises(UsageError, match="have the shapes"):
        SequenceSampler(**ten(patients=np.arange(9)), settings=SamplingSettings(), seed=0)
    with pytest.raises(UsageError, match="a type is not"):
        SequenceSampler(**ten(types=np.arange(10)), settings=SamplingSettings(), seed=0)


def test_memory_grows_with_the_lesions_not_with_their_square():
    lesions = small_set(0, count=12_000, types=4, patients=1500)
    tracemalloc.start()
    SequenceSampler(*lesions, SamplingSettings(), 0).draw(0, 24)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000**2 / 2  # A table of one bit a pair would be a quarter of it, of one number eight times.
