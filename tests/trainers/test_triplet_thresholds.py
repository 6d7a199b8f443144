"""By how much thresholds must widen, against a loop over all pairs."""

import numpy as np
import pytest

from trainers.triplet.thresholds import WIDEST_FACTOR, Thresholds, factor_for_share, needed_factors


def by_hand(location, size, patients, other_patient):
    needed = []
    for a in range(len(patients)):
        least = np.inf
        for b in range(len(patients)):
            if a == b or (other_patient and patients[a] == patients[b]):
                continue
            parts = [np.sqrt(((part[a] - part[b]) ** 2).sum()) for part in (location, size) if part is not None]
            least = min(least, max(parts, default=0.0))
        needed.append(least)
    return needed


@pytest.mark.parametrize("other_patient", [True, False])
@pytest.mark.parametrize("cues", ["both", "location", "size", "none"])
@pytest.mark.parametrize("patients", [1, 2, 40])
def test_the_needed_factor_is_that_of_the_nearest_positive(other_patient, cues, patients):
    rng = np.random.default_rng(patients)
    location = rng.normal(0, 3, (150, 3)) if cues in {"both", "location"} else None
    size = rng.normal(0, 3, (150, 2)) if cues in {"both", "size"} else None
    who = rng.integers(patients, size=150)
    found = needed_factors(location, size, who, other_patient=other_patient)
    assert found == pytest.approx(by_hand(location, size, who, other_patient))


def test_a_patient_with_nearly_all_lesions_does_not_hide_the_others():
    # Every near neighbour is of the same patient: the search has to widen up to the whole set.
    location = np.zeros((400, 3))
    location[:, 0] = np.arange(400) * 0.01
    location[399, 0] = 100
    who = np.zeros(400, dtype=int)
    who[399] = 1
    found = needed_factors(location, None, who, other_patient=True)
    assert found == pytest.approx(
        100 - location[:, 0].clip(max=99) * (np.arange(400) < 399) - (np.arange(400) == 399) * 3.98
    )


def test_twins_in_one_place_need_no_widening():
    found = needed_factors(np.ones((300, 3)), np.ones((300, 2)), np.arange(300) % 7, other_patient=True)
    assert (found == 0).all()


def test_the_factor_for_a_share_is_the_smallest_that_serves_it():
    needed = np.array([0.5, 1.5, 2.5, 3.5, np.inf])
    for share, expected in ((0.2, 1.0), (0.4, 1.5), (0.6, 2.5), (0.8, 3.5), (1.0, 3.5)):
        factor = factor_for_share(needed, share)
        assert factor == pytest.approx(expected)
        assert np.mean(needed < factor) >= min(share, 0.8)
    assert factor_for_share(np.array([np.inf, np.inf]), 0.5) == 1.0
    assert factor_for_share(np.array([]), 0.5) == 1.0
    assert factor_for_share(np.array([1.2, WIDEST_FACTOR + 1, WIDEST_FACTOR + 2]), 1.0) == pytest.approx(1.2)


def test_high_thresholds_move_up_with_the_low_ones():
    wide = Thresholds(0.02, 0.1, 0.03, 0.08).widened(3)
    assert wide.location_low == pytest.approx(0.06)
    assert wide.location_high == pytest.approx(0.14)
    assert wide.size_low == pytest.approx(0.09)
    assert wide.size_high == pytest.approx(0.14)
    assert wide.factor == 3
