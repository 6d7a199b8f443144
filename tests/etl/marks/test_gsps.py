"""Lines of a presentation state: which two belong together, how sure that is, and that no text comes along."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from etl.marks.gsps import read_gsps
from etl.marks.model import Convention, Shape
from etl.quality import Flag, Reason, RefusedError

IMAGE, OTHER = "1.2.3.4.5", "1.2.3.4.6"


def graphic(*points, kind="POLYLINE", units="PIXEL"):
    item = Dataset()
    item.GraphicType, item.GraphicAnnotationUnits, item.GraphicDimensions = kind, units, 2
    item.NumberOfGraphicPoints = len(points)
    item.GraphicData = [float(value) for point in points for value in point]
    return item


def annotation(*graphics, images=(IMAGE,), text=None, layer="L1", frame=None):
    item = Dataset()
    item.GraphicLayer = layer
    references = []
    for image in images:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", image
        if frame:
            reference.ReferencedFrameNumber = frame
        references.append(reference)
    item.ReferencedImageSequence = Items(references)
    item.GraphicObjectSequence = Items(graphics)
    if text:
        words = Dataset()
        words.UnformattedTextValue = text
        item.TextObjectSequence = Items([words])
    return item


def state(*annotations):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.3.9"
    dataset.StudyInstanceUID, dataset.PatientID = "1.2.3.1", "X"
    dataset.GraphicAnnotationSequence = Items(annotations)
    return dataset


LONG = ((10, 20), (50, 20))
SHORT = ((30, 8), (30, 30))


def test_two_crossing_lines_are_one_measurement():
    (mark,) = read_gsps(state(annotation(graphic(*SHORT), graphic(*LONG), frame=3))).marks

    assert (mark.shape, mark.convention, mark.confidence) == (Shape.BIDIRECTIONAL, Convention.HALF_BASED, 0.95)
    assert (mark.long_axis, mark.short_axis) == (LONG, SHORT)
    assert (mark.image_uid, mark.frame_number) == (IMAGE, 3)


def test_lines_of_two_annotations_pair_with_less_confidence():
    (mark,) = read_gsps(state(annotation(graphic(*LONG), layer="A"), annotation(graphic(*SHORT), layer="B"))).marks

    assert mark.confidence == 0.85


def test_slanted_pair_is_less_sure_and_a_flat_one_is_none():
    slanted = read_gsps(state(annotation(graphic(*LONG), graphic((27.5, 8), (30.5, 30))))).marks
    flat = read_gsps(state(annotation(graphic(*LONG), graphic((10, 10), (50, 30))))).marks

    assert [mark.confidence for mark in slanted] == [0.85]
    assert [mark.shape for mark in flat] == [Shape.LENGTH, Shape.LENGTH]


def test_lines_that_do_not_meet_stay_single_lengths():
    marks = read_gsps(state(annotation(graphic(*LONG), graphic((90, 8), (90, 30))))).marks

    assert [(mark.shape, mark.confidence) for mark in marks] == [(Shape.LENGTH, 0.5)] * 2
    assert all(Flag.NO_SHORT_AXIS in mark.flags for mark in marks)


def test_lines_on_two_images_never_pair():
    marks = read_gsps(state(annotation(graphic(*LONG)), annotation(graphic(*SHORT), images=(OTHER,)))).marks

    assert {mark.image_uid for mark in marks} == {IMAGE, OTHER}
    assert all(mark.short_axis is None for mark in marks)


def test_two_lesions_in_one_annotation_are_kept_apart():
    there = [((x + 100, y + 60), (u + 100, v + 60)) for (x, y), (u, v) in (LONG, SHORT)]

    marks = read_gsps(state(annotation(*(graphic(*line) for line in (LONG, there[1], SHORT, there[0]))))).marks

    assert {(mark.long_axis, mark.short_axis) for mark in marks} == {(LONG, SHORT), tuple(there)}


def test_crossing_measurements_pair_within_their_annotations():
    one = (graphic((0, 50), (100, 50)), graphic((50, 30), (51, 70)))
    other = (graphic((40, 0), (41, 100)), graphic((20, 45), (60, 45)))

    marks = read_gsps(state(annotation(*one), annotation(*other))).marks

    assert len(marks) == 2
    assert {mark.short_axis for mark in marks} == {((50, 30), (51, 70)), ((20, 45), (60, 45))}
    assert all(mark.confidence == 0.75 for mark in marks)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("23.4 x 12.1 mm", (23.4, 12.1, "mm")),
        ("12,1 X 23,4mm Dr. House", (23.4, 12.1, "mm")),
        ("L: 2.34 cm", (2.34, None, "cm")),
        ("see report of Jane Doe, 34 years", (None, None, None)),
        ("Doe 1234567 mm", (None, None, None)),
    ],
)
def test_only_lengths_are_taken_from_text(text, stated):
    report = read_gsps(state(annotation(graphic(*LONG), graphic(*SHORT), text=text)))

    (mark,) = report.marks
    assert (mark.stated_long, mark.stated_short, mark.stated_unit) == stated
    assert "Doe" not in repr(report)
    assert "House" not in repr(report)


def test_circle_and_ellipse_become_diameters():
    circle = graphic((50, 50), (60, 50), kind="CIRCLE")
    ellipse = graphic((0, 0), (40, 0), (20, -5), (20, 5), kind="ELLIPSE")

    marks = read_gsps(state(annotation(circle), annotation(ellipse))).marks

    lengths = [[np.hypot(*np.subtract(*axis)) for axis in (mark.long_axis, mark.short_axis)] for mark in marks]
    assert lengths == [[20, 20], [40, 10]]


@pytest.mark.parametrize(
    "bad",
    [
        annotation(graphic(*LONG, units="DISPLAY")),
        annotation(graphic(*LONG), images=(IMAGE, OTHER)),
        annotation(graphic(*LONG), images=()),
        annotation(graphic((1, 2), (3, 9), (5, 2))),
        annotation(graphic((1, 2), kind="POINT")),
    ],
)
def test_what_measures_nothing_costs_one_item(bad):
    report = read_gsps(state(bad, annotation(graphic(*LONG), graphic(*SHORT))))

    assert len(report.marks) == 1
    assert [one.reason for one in report.refused] == [Reason.MARK_INVALID]


def test_annotation_without_an_image_belongs_to_the_only_one_presented():
    dataset = state(annotation(graphic(*LONG), images=()))
    series, reference = Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = OTHER
    series.ReferencedImageSequence = Items([reference])
    dataset.ReferencedSeriesSequence = Items([series])

    assert [mark.image_uid for mark in read_gsps(dataset).marks] == [OTHER]


def test_written_by_highdicom_it_reads_the_same():
    import highdicom as hd

    line = hd.pr.GraphicObject(
        hd.pr.GraphicTypeValues.POLYLINE, np.array(LONG, dtype=np.float32), hd.pr.AnnotationUnitsValues.PIXEL
    )
    across = hd.pr.GraphicObject(
        hd.pr.GraphicTypeValues.POLYLINE, np.array(SHORT, dtype=np.float32), hd.pr.AnnotationUnitsValues.PIXEL
    )
    item = Dataset()
    item.GraphicLayer = "L1"
    item.GraphicObjectSequence = Items([line, across])
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = IMAGE
    item.ReferencedImageSequence = Items([reference])

    (mark,) = read_gsps(state(item)).marks

    assert (mark.long_axis, mark.short_axis) == (LONG, SHORT)


def test_state_without_graphics_is_no_report():
    with pytest.raises(RefusedError) as refusal:
        read_gsps(state())
    assert refusal.value.reason is Reason.NOT_A_REPORT
