"""The phantom's pictures: same bytes for the same arguments, tissues with their HU, anatomy in its order."""

import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest

from etl.phantom.anatomy import body_height
from etl.phantom.lesions import LesionState, place_lesion
from etl.phantom.patient import make_patient
from etl.phantom.render import render_slice
from etl.phantom.scanner import make_series
from etl.phantom.study import make_study
from etl.phantom.tissues import Tissue
from lesionary.anatomy import LESION_TYPES
from lesionary.recist import measure_mask, measure_points

SEED = 3
SIZE = 96


def drawn(index=1, share=0.5, lesions=(), size=SIZE, study_index=1, **changes):
    patient = make_patient(SEED, index)
    study = make_study(patient, study_index)
    series = replace(make_series(patient, study, 1, size), **changes)
    return render_slice(patient, study, series, share * patient.trunk_length_mm, lesions)


def digest(share):
    return drawn(share=share).hu.tobytes()


def test_same_arguments_give_the_same_bytes_in_any_process_and_order():
    shares = [0.2, 0.5, 0.8]
    here = {share: digest(share) for share in shares}

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = dict(zip(reversed(shares), pool.map(digest, list(reversed(shares))), strict=True))

    assert here == there


def test_other_seeds_patients_studies_and_heights_give_other_pictures():
    pictures = [
        drawn().hu,
        drawn(index=2).hu,
        drawn(study_index=2).hu,
        drawn(share=0.52).hu,
    ]

    assert len({picture.tobytes() for picture in pictures}) == 4


def test_patient_travels_as_his_numbers():
    patient = make_patient(SEED, 5)

    assert len(pickle.dumps(patient)) < 200
    assert pickle.loads(pickle.dumps(patient)) == patient
    assert make_patient(SEED, 6) != patient


def test_heights_rise_along_every_body():
    for index in range(1, 40):
        patient = make_patient(SEED, index)
        heights = [body_height(patient, z) for z in np.linspace(0, patient.trunk_length_mm, 200)]
        assert all(np.diff(heights) > 0), index
        assert -0.1 < heights[0] < 0.1
        assert 0.9 < heights[-1] < 1.1


@pytest.mark.parametrize(
    ("tissue", "share", "low", "high"),
    [
        (Tissue.LUNG, 0.3, -950, -700),
        (Tissue.FAT_UNDER_SKIN, 0.6, -130, -60),
        (Tissue.MUSCLE, 0.75, 20, 80),
        (Tissue.BONE, 0.8, 100, 900),
        (Tissue.LIVER, 0.52, 20, 160),
        (Tissue.KIDNEY, 0.6, 20, 260),
    ],
)
def test_tissues_have_their_hu(tissue, share, low, high):
    found = 0
    for index in range(1, 7):
        picture = drawn(index=index, share=share, size=192, kernel="standard", noise_sigma_hu=0.0)
        inside = same = (picture.labels == tissue) & (picture.hu > -1024)  # zoomed series cut the body off
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):  # edges are mixed with their neighbours
            inside = inside & np.roll(same, shift, axis=(0, 1))
        if inside.sum() > 30:
            found += 1
            assert low < np.median(picture.hu[inside]) < high, index
    assert found >= 3


def test_organs_come_in_their_order_from_neck_to_thigh():
    first, last = {}, {}
    patient = make_patient(SEED, 1)
    for share in np.linspace(0.01, 0.99, 70):
        for tissue in np.unique(drawn(share=float(share), size=64).labels):
            first.setdefault(int(tissue), share)
            last[int(tissue)] = share

    order = [Tissue.AIRWAY, Tissue.LUNG, Tissue.HEART, Tissue.LIVER, Tissue.KIDNEY, Tissue.BLADDER]
    starts = [first[tissue] for tissue in order]
    assert starts == sorted(starts)
    assert last[Tissue.LUNG] < first[Tissue.BLADDER]
    assert last[Tissue.HEART] < first[Tissue.BLADDER]
    assert patient.trunk_length_mm > 600


def test_picture_is_16_bit_hu_in_a_round_field():
    picture = drawn()

    assert picture.hu.dtype == np.int16
    assert picture.hu.shape == (SIZE, SIZE)
    assert picture.hu[0, 0] == picture.hu[-1, -1] == -1024
    assert picture.hu.min() >= -1024
    assert picture.hu.max() <= 3071


def test_field_of_view_does_not_depend_on_the_matrix():
    patient = make_patient(SEED, 1)
    study = make_study(patient, 1)
    small, large = (make_series(patient, study, 1, size) for size in (64, 512))

    assert small.spacing_xy_mm * 64 == pytest.approx(large.spacing_xy_mm * 512)
    assert small.noise_sigma_hu == large.noise_sigma_hu


def test_scanners_settings_lie_in_their_ranges():
    for index in range(1, 60):
        patient = make_patient(SEED, index)
        for study_index in (1, 2):
            study = make_study(patient, study_index)
            series = make_series(patient, study, 1, 512)
            assert 0.3 <= series.spacing_xy_mm <= 1.0
            assert series.slice_interval_mm in {1.0, 2.0, 2.5, 5.0}
            assert 3 < series.noise_sigma_hu < 150


def test_body_box_holds_the_body_and_leaves_out_table_and_arms():
    for index in range(1, 12):
        picture = drawn(index=index, share=0.5)
        left, top, right, bottom = picture.body_box_xyxy_px
        rows, columns = np.nonzero((picture.labels > 0) & (picture.labels != Tissue.ARM))
        assert (left, right) == (columns.min(), columns.max())
        assert (top, bottom) == (rows.min(), rows.max())


def placed(lesion_type, long_mm, first=1):
    """The first patient with room for a lesion, and the lesion."""
    for index in range(first, first + 15):
        patient = make_patient(SEED, index)
        lesion = place_lesion(patient, lesion_type, 1, long_mm)
        if lesion is not None:
            return patient, lesion
    raise AssertionError(f"nobody has room for {lesion_type}")


def with_lesion(patient, lesion, growth=1.0, shift=(0.0, 0.0, 0.0), offset_mm=0.0, size=256):
    study = make_study(patient, 1)
    series = make_series(patient, study, 1, size)
    state = LesionState(lesion, growth, shift)
    return series, render_slice(patient, study, series, lesion.z_mm + shift[2] + offset_mm, [state])


@pytest.mark.parametrize("lesion_type", LESION_TYPES)
def test_every_type_finds_room_in_most_patients_and_shows(lesion_type):
    shown = 0
    for index in range(1, 9):
        patient = make_patient(SEED, index)
        lesion = place_lesion(patient, lesion_type, 1, 20.0)
        if lesion is None:
            continue
        _, picture = with_lesion(patient, lesion, size=128)
        mask = picture.lesion_masks.get(1)
        shown += mask is not None and (mask > 0.5).sum() >= 4

    assert shown >= 5


def test_free_lesion_measures_about_what_was_asked_for():
    ratios = []
    for number in range(1, 25):
        patient, lesion = placed("soft_tissue", 30.0, first=number)
        lesion = replace(lesion, look=replace(lesion.look, confined=()))
        series, picture = with_lesion(patient, lesion)
        if 1 in picture.lesion_masks:
            points = measure_mask(picture.lesion_masks[1] > 0.5)
            ratios.append(measure_points(points, (series.spacing_xy_mm,) * 2).long_mm / 30.0)

    assert 0.75 < np.median(ratios) < 1.15


def test_confined_lesion_stays_in_its_organ():
    patient, lesion = placed("liver", 40.0)
    _, picture = with_lesion(patient, lesion)

    assert set(np.unique(picture.labels[picture.lesion_masks[1] > 0])) == {Tissue.LIVER}


def test_growth_makes_larger_and_distance_smaller():
    patient, lesion = placed("lung", 24.0)
    lesion = replace(lesion, look=replace(lesion.look, confined=()))

    def area(**options):
        mask = with_lesion(patient, lesion, **options)[1].lesion_masks.get(1)
        return 0.0 if mask is None else float(mask.sum())

    areas = [area(growth=growth) for growth in (0.5, 1.0, 1.5, 2.0)]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1] / 4
    assert area(offset_mm=40.0) == 0.0
    assert 0 < area(offset_mm=8.0) < area()


def test_drift_moves_the_lesion_on_the_picture():
    patient, lesion = placed("soft_tissue", 24.0)
    lesion = replace(lesion, look=replace(lesion.look, confined=()))

    def center(shift):
        series, picture = with_lesion(patient, lesion, shift=shift)
        rows, columns = np.nonzero(picture.lesion_masks[1] > 0.5)
        return np.array([columns.mean(), rows.mean()]) * series.spacing_xy_mm

    moved = center((4.0, 0.0, 0.0)) - center((0.0, 0.0, 0.0))
    assert 2.0 < moved[0] < 6.0
    assert abs(moved[1]) < 2.0


def test_lesion_changes_the_picture_only_where_its_mask_says():
    patient, lesion = placed("lung", 24.0)
    study = make_study(patient, 1)
    series = replace(make_series(patient, study, 1, 128), kernel="sharp", noise_sigma_hu=0.0)
    without = render_slice(patient, study, series, lesion.z_mm, [])
    with_it = render_slice(patient, study, series, lesion.z_mm, [LesionState(lesion, 1.0, (0.0, 0.0, 0.0))])

    changed = without.hu != with_it.hu
    near = with_it.lesion_masks[1] > 0
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        near = near | np.roll(with_it.lesion_masks[1] > 0, shift, axis=(0, 1))  # the kernel reaches one pixel
    assert changed.any()
    assert not (changed & ~near).any()


def test_placement_depends_on_the_identifier_alone():
    patient = make_patient(SEED, 1)

    one, again, other = (place_lesion(patient, "liver", number, 20.0) for number in (1, 1, 2))

    assert one == again
    assert one != other


def test_near_lesions_lie_near():
    patient, lesion = placed("lung", 15.0)
    gaps = [
        abs(found.z_mm - lesion.z_mm)
        for number in range(2, 30)
        if (found := place_lesion(patient, "lung", number, 15.0, near=lesion)) is not None
    ]

    assert np.median(gaps) < 60
