"""Marks to images and to each other: orphans, duplicates, one lesion on two series, marks in patient coordinates."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.marks.codes import known_code, lesion_type_of_site, site_of_lesion_type
from etl.marks.joining import PlaneIndex, join_marks
from etl.marks.model import Convention, Mark, Report, Shape
from etl.marks.planes import ImagePlane, nearest_plane, placed_on
from etl.quality import Flag
from lesionary.anatomy import LESION_TYPES

LONG, SHORT = ((10.0, 20.0), (50.0, 20.0)), ((30.0, 8.0), (30.0, 30.0))


def plane(image="1.2.1", z=0.0, series="s1", spacing=1.0, frame=None, orientation=(1, 0, 0, 0, 1, 0), position=None):
    return ImagePlane(
        image,
        frame,
        series,
        position or (0.0, 0.0, z),
        tuple(map(float, orientation)),
        (spacing, spacing),
        64,
        64,
        "1.9",
    )


def mark(source="sr", image="1.2.1", item=1, long_axis=LONG, short_axis=SHORT, **more):
    shape = Shape.BIDIRECTIONAL if short_axis else Shape.LENGTH
    return Mark(source, shape, item, image, long_axis=long_axis, short_axis=short_axis, **more)


def report(*marks, name="1.5", saved_at="20200101"):
    return Report(name, marks[0].source_format, "P", "1.7", "20200101", saved_at, marks=marks)


def joined(reports, *planes):
    return join_marks(reports, PlaneIndex(planes or [plane()]))


def test_mark_without_its_image_is_an_orphan_and_no_lesion():
    (one,) = joined([report(mark(image="1.2.99"))])

    assert (one.plane, one.makes_lesion) == (None, False)
    assert Flag.ORPHAN_MARK in one.flags


def test_best_source_makes_the_lesion_and_the_others_are_duplicates():
    moved = tuple((x + 0.4, y - 0.3) for x, y in LONG)
    reports = [
        report(mark("gsps", long_axis=moved), name="1.1"),
        report(mark("sr"), name="1.8"),
        report(mark("aim"), name="1.3"),
    ]

    found = joined(reports)

    assert {one.mark.source_format: one.makes_lesion for one in found} == {"sr": True, "gsps": False, "aim": False}
    assert {one.duplicate_of.mark.source_format for one in found if one.duplicate_of} == {"sr"}


def test_axis_drawn_the_other_way_round_is_the_same_axis():
    found = joined([report(mark()), report(mark("gsps", long_axis=LONG[::-1]), name="1.6")])

    assert sum(one.makes_lesion for one in found) == 1


def test_nearly_round_lesion_is_one_whichever_axis_is_called_long():
    found = joined([report(mark()), report(mark("gsps", long_axis=SHORT, short_axis=LONG), name="1.6")])

    assert sum(one.makes_lesion for one in found) == 1


def test_conventions_are_told_apart_before_comparing():
    shifted = [tuple((x - 0.5, y - 0.5) for x, y in axis) for axis in (LONG, SHORT)]
    table = mark("table", long_axis=shifted[0], short_axis=shifted[1], convention=Convention.ZERO_BASED)

    assert sum(one.makes_lesion for one in joined([report(mark()), report(table, name="1.6")])) == 1


def test_two_lesions_on_one_image_stay_two():
    other = mark(item=2, long_axis=((20.0, 40.0), (50.0, 40.0)), short_axis=((30.0, 36.0), (30.0, 45.0)))

    assert sum(one.makes_lesion for one in joined([report(mark(), other)])) == 2


def test_report_saved_again_counts_in_its_last_version():
    edited = mark(long_axis=((10.0, 25.0), (50.0, 25.0)), tracking_uid="1.44")
    reports = [
        report(mark(tracking_uid="1.44"), name="1.1", saved_at="20200101"),
        report(edited, name="1.2", saved_at="20200301"),
    ]

    kept = [one for one in joined(reports) if one.makes_lesion]

    assert [one.report.report_uid for one in kept] == ["1.2"]


def test_single_length_along_a_known_long_axis_is_that_lesion():
    found = joined([report(mark("gsps", short_axis=None)), report(mark("aim"), name="1.6")])

    assert {one.mark.source_format for one in found if one.makes_lesion} == {"aim"}


def test_same_place_on_another_series_keeps_its_row_and_says_so():
    planes = [plane(), plane("1.2.2", z=0.4, series="s2", spacing=0.5)]
    doubled = [tuple((x * 2 - 0.5, y * 2 - 0.5) for x, y in axis) for axis in (LONG, SHORT)]
    there = mark(image="1.2.2", item=2, long_axis=doubled[0], short_axis=doubled[1])

    first, second = joined([report(mark(), there)], *planes)

    assert first.makes_lesion
    assert second.makes_lesion
    assert second.duplicate_of is first
    assert Flag.MARKED_IN_OTHER_SERIES in second.flags


def test_key_image_makes_no_lesion():
    (one,) = joined([report(Mark("key_object", Shape.KEY_IMAGE, 1, "1.2.1"))])

    assert not one.makes_lesion
    assert one.plane is not None


def test_frame_of_a_multi_frame_image_is_found_and_a_missing_one_is_not():
    frames = [plane(z=float(number), frame=number) for number in (1, 2, 3)]

    found = joined([report(mark(frame_number=2), mark(item=2, frame_number=9))], *frames)

    assert [one.plane and one.plane.frame_number for one in found] == [2, None]


def test_frame_number_of_a_single_frame_image_is_of_no_account():
    (one,) = joined([report(mark(frame_number=1))])

    assert one.plane is not None


def test_point_outside_the_image_is_flagged():
    (one,) = joined([report(mark(long_axis=((10.0, 20.0), (70.0, 20.0))))])

    assert Flag.MARK_OUTSIDE_IMAGE in one.flags


def test_mark_in_space_goes_to_the_nearest_slice_its_report_is_about():
    planes = [plane(z=0.0), plane("1.2.2", z=5.0), plane("1.2.3", z=4.9, series="s2")]
    in_space = Mark(
        "sr", Shape.BIDIRECTIONAL, 1, frame_of_reference_uid="1.9",
        long_axis_mm=((9.5, 19.5, 4.9), (49.5, 19.5, 4.9)), short_axis_mm=((29.5, 7.5, 4.9), (29.5, 29.5, 4.9)),
    )  # fmt: skip
    plain, pointed = report(in_space), Report("1.5", "sr", evidence=frozenset({"1.2.2"}), marks=(in_space,))

    assert joined([plain], *planes)[0].plane.image_uid == "1.2.3"
    (one,) = joined([pointed], *planes)
    assert one.plane.image_uid == "1.2.2"
    assert np.allclose(one.mark.long_axis, LONG)


def test_mark_in_space_far_from_every_slice_is_an_orphan():
    far = Mark("sr", Shape.LENGTH, 1, frame_of_reference_uid="1.9", long_axis_mm=((0, 0, 90.0), (9, 0, 90.0)))

    assert joined([report(far)])[0].plane is None


angles = st.floats(-3, 3)
places = st.floats(-200, 200)
pixels = st.floats(0, 511)


@given(st.tuples(angles, angles, angles), st.tuples(places, places, places), st.floats(0.3, 2), pixels, pixels)
def test_pixel_to_space_and_back_is_the_same_pixel(turns, position, spacing, x, y):
    a, b, c = turns
    turn = np.linalg.qr(np.array([[1, a, b], [0, 1, c], [0.3, 0.1, 1]]))[0]
    tilted = plane(orientation=(*turn[0], *turn[1]), position=position, spacing=spacing)

    back = tilted.in_pixels(tilted.in_space((x, y)))

    assert math.dist(back, (x, y)) < 1e-6
    assert tilted.distance_mm(tilted.in_space((x, y))) < 1e-6
    assert nearest_plane([tilted.in_space((x, y))], [tilted], 1.0) is tilted


def test_mark_that_is_placed_already_stays_as_it_is():
    assert placed_on(mark(), plane()) == mark()


@pytest.mark.parametrize(
    ("value", "scheme", "known"),
    [
        ("10200004", "SCT", "SCT:10200004"),
        ("T-62000", "SRT", "SCT:10200004"),
        ("39607008", "SRT", "SCT:39607008"),
        ("39607008", "99SDM", "SCT:39607008"),
        ("121071", "DCM", "DCM:121071"),
        ("CORNERSTONEFREETEXT", "CST4", None),
        ("12345678", "SCT", None),
        ("Jane Doe", "DCM", None),
    ],
)
def test_only_codes_of_published_lists_pass(value, scheme, known):
    assert known_code(value, scheme) == known


def test_every_type_has_a_place_that_leads_back_to_it():
    for lesion_type in LESION_TYPES:
        assert lesion_type_of_site(site_of_lesion_type(lesion_type)) == lesion_type
