"""Patients through time: who has what, and that a plan depends on nobody else."""

import math

import numpy as np
import pytest

from etl.phantom.plan import SeriesPlan, draw_long_diameter_mm, plan_patient, plan_volume, split_code
from lesionary.anatomy import LESION_TYPES

SEED = 5
SIZE = 64


@pytest.fixture(scope="module")
def planned() -> list[SeriesPlan]:
    return [plan for index in range(1, 13) for plan in plan_patient(SEED, index, SIZE)]


def test_the_same_seed_and_number_give_the_same_plan() -> None:
    assert plan_patient(SEED, 3, SIZE) == plan_patient(SEED, 3, SIZE)


def test_another_seed_gives_another_plan() -> None:
    assert [plan.keys for plan in plan_patient(SEED, 3, SIZE)] != [plan.keys for plan in plan_patient(6, 3, SIZE)]


@pytest.mark.parametrize("patients", [40, 100, 1000])
def test_patients_fall_into_the_parts_70_15_15(patients: int) -> None:
    codes = [split_code(SEED, index) for index in range(1, patients + 1)]

    shares = [codes.count(code) / patients for code in (1, 2, 3)]
    assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.03)


def test_long_diameters_follow_the_release() -> None:
    """Percentiles of the test part's long diameters: 5.4, 12.3, 19.0, 30.7 and 64.7 mm."""
    rng = np.random.default_rng(0)
    shares = [0.025, 0.238, 0.175, 0.142, 0.222, 0.047, 0.068, 0.083]
    drawn = [
        draw_long_diameter_mm(rng, name)
        for name, share in zip(LESION_TYPES, shares, strict=True)
        for _ in range(round(share * 8000))
    ]

    found = np.percentile(drawn, [5, 25, 50, 75, 95])

    assert np.abs(np.log(found / [5.4, 12.3, 19.0, 30.7, 64.7])).max() < math.log(1.35)
    assert found[2] == pytest.approx(19.0, rel=0.06)
    assert 200.0 < max(drawn) <= 343.0


def test_every_key_slice_lies_in_its_scan_and_marks_a_lesion_that_is_there(planned: list[SeriesPlan]) -> None:
    for plan in planned:
        present = {state.lesion.identifier for state in plan.states}
        assert plan.keys
        assert {key.lesion_id for key in plan.keys} <= present
        assert all(1 <= key.slice_index <= plan.grid.count for key in plan.keys)


def test_key_slices_are_the_nearest_to_their_lesions_or_shared(planned: list[SeriesPlan]) -> None:
    for plan in planned:
        for key in plan.keys:
            state = plan.state(key.lesion_id)
            off_mm = abs(plan.grid.z_mm(key.slice_index) - state.lesion.z_mm - state.shift_xyz_mm[2])
            alone = sum(other.slice_index == key.slice_index for other in plan.keys) == 1
            reach_mm = plan.grid.interval_mm if alone else state.lesion.long_diameter_mm * state.growth
            assert off_mm <= reach_mm + 1e-6


def test_nobody_grows_younger(planned: list[SeriesPlan]) -> None:
    ages: dict[int, list[tuple[int, int]]] = {}
    for plan in planned:
        ages.setdefault(plan.patient.index, []).append((plan.study_index, plan.age_years))

    for known in ages.values():
        by_study = [age for _, age in sorted(known)]
        assert by_study == sorted(by_study)


def test_lesions_change_between_studies_and_some_are_never_marked(planned: list[SeriesPlan]) -> None:
    growth: dict[tuple[int, int], set[float]] = {}
    for plan in planned:
        for state in plan.states:
            growth.setdefault((plan.patient.index, state.lesion.identifier), set()).add(state.growth)
    marked = {(plan.patient.index, key.lesion_id) for plan in planned for key in plan.keys}

    assert any(len(values) > 1 for values in growth.values())
    assert set(growth) - marked


def test_all_series_of_a_study_show_the_same_lesions(planned: list[SeriesPlan]) -> None:
    studies: dict[tuple[int, int], list[SeriesPlan]] = {}
    for plan in planned:
        studies.setdefault((plan.patient.index, plan.study_index), []).append(plan)

    assert any(len(plans) > 1 for plans in studies.values())
    for plans in studies.values():
        assert all(plan.states == plans[0].states for plan in plans)


def test_a_whole_scan_has_all_its_slices_and_no_marks() -> None:
    plan = plan_volume(SEED, 40, SIZE)

    assert plan.keys == ()
    assert [part.slice_indices for part in plan.sub_volumes] == [range(1, plan.grid.count + 1)]
    assert plan.grid.count * plan.grid.interval_mm > 0.2 * plan.patient.trunk_length_mm
