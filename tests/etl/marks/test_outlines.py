"""Outlines: axes of polygons, structures of RT structure sets, segments of segmentations."""

import math

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from etl.marks.model import Shape
from etl.marks.outlines import read_rtstruct, read_segmentation
from etl.marks.planes import axes_of_outline
from etl.quality import Reason

IMAGE = "1.2.3.4"


def ellipse(a, b, angle=0.0, corners=200):
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    x, y = a * np.cos(t), b * np.sin(t)
    return [
        (float(u * math.cos(angle) - v * math.sin(angle)) + 40, float(u * math.sin(angle) + v * math.cos(angle)) + 30)
        for u, v in zip(x, y, strict=True)
    ]


@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
def test_axes_of_an_ellipse_are_its_own(angle):
    long_axis, short_axis = axes_of_outline(ellipse(20, 8, angle), (1.0, 1.0))

    assert math.dist(*long_axis) == pytest.approx(40, rel=1e-3)
    assert math.dist(*short_axis) == pytest.approx(16, rel=1e-2)


def test_longest_is_measured_in_millimetres_not_pixels():
    long_axis, _ = axes_of_outline([(0, 0), (10, 0), (10, 8), (0, 8)], (0.5, 5.0))

    assert abs(long_axis[0][1] - long_axis[1][1]) == 8


def test_outline_without_area_has_no_short_axis():
    long_axis, short_axis = axes_of_outline([(0, 0), (3, 4), (6, 8)], (1.0, 1.0))

    assert math.dist(*long_axis) == 10
    assert short_axis is None


def header(sop_class):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyInstanceUID = sop_class, "1.2.3.9", "1.2.3.1"
    return dataset


def contour(points, z, image=IMAGE, kind="CLOSED_PLANAR"):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [value for x, y in points for value in (x, y, z)]
    if image:
        reference = Dataset()
        reference.ReferencedSOPInstanceUID = image
        item.ContourImageSequence = Items([reference])
    return item


def structure_set(*rois):
    dataset = header("1.2.840.10008.5.1.4.1.1.481.3")
    dataset.StructureSetROISequence = Items([])
    dataset.ROIContourSequence = Items([])
    for number, contours in enumerate(rois, 1):
        named, roi = Dataset(), Dataset()
        named.ROINumber, named.ROIName, named.ReferencedFrameOfReferenceUID = number, "DOE JANE TUMOR", "1.2.3.7"
        roi.ReferencedROINumber, roi.ContourSequence = number, Items(contours)
        dataset.StructureSetROISequence.append(named)
        dataset.ROIContourSequence.append(roi)
    return dataset


def test_structure_is_measured_where_it_is_largest():
    small, large = contour(ellipse(5, 4), 10.0, "1.2.3.41"), contour(ellipse(20, 8), 15.0, "1.2.3.42")

    report = read_rtstruct(structure_set([small, large], [contour(ellipse(3, 3), 0.0)]))

    assert [mark.image_uid for mark in report.marks] == ["1.2.3.42", IMAGE]
    assert {mark.shape for mark in report.marks} == {Shape.OUTLINE}
    assert {mark.confidence for mark in report.marks} == {0.3}
    assert "DOE" not in repr(report)


@pytest.mark.parametrize(
    "bad",
    [[], [contour(ellipse(3, 3), 0.0, kind="POINT")], [contour([(1.0, 2.0)], 0.0)]],
    ids=["empty", "point", "short"],
)
def test_structure_without_an_outline_costs_itself(bad):
    report = read_rtstruct(structure_set(bad, [contour(ellipse(3, 3), 0.0)]))

    assert len(report.marks) == 1
    assert [one.reason for one in report.refused] == [Reason.MARK_INVALID]


def segmentation(masks, *, bits=1):
    dataset = header("1.2.840.10008.5.1.4.1.1.66.4")
    dataset.Rows, dataset.Columns = masks[0].shape
    dataset.BitsAllocated, dataset.SegmentationType = bits, "BINARY"
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel = 1, "DOE JANE"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "52988006", "SCT", "DOE"
    segment.SegmentedPropertyTypeCodeSequence = Items([code])
    dataset.SegmentSequence = Items([segment])
    groups = []
    for number in range(len(masks)):
        group, identity, derivation, source = Dataset(), Dataset(), Dataset(), Dataset()
        identity.ReferencedSegmentNumber = 1
        group.SegmentIdentificationSequence = Items([identity])
        source.ReferencedSOPInstanceUID = f"1.2.3.{number + 1}"
        derivation.SourceImageSequence = Items([source])
        group.DerivationImageSequence = Items([derivation])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    stacked = np.stack(masks).astype(np.uint8)
    dataset.PixelData = np.packbits(stacked.ravel(), bitorder="little").tobytes() if bits == 1 else stacked.tobytes()
    return dataset


@pytest.mark.parametrize("bits", [1, 8])
def test_segment_is_measured_on_its_largest_frame(bits):
    masks = [np.zeros((21, 19), bool) for _ in range(3)]
    masks[0][5:7, 5:8] = True
    masks[1][4:16, 3:9] = True
    masks[2][1, 1] = True

    report = read_segmentation(segmentation(masks, bits=bits))

    (mark,) = report.marks
    assert (mark.image_uid, mark.finding) == ("1.2.3.2", "SCT:52988006")
    assert math.dist(*mark.long_axis) == pytest.approx(math.hypot(12, 6), rel=1e-6)
    assert "DOE" not in repr(report)


def test_empty_segment_and_missing_pixels_cost_one_item():
    empty = read_segmentation(segmentation([np.zeros((20, 20), bool)]))
    cut = segmentation([np.ones((20, 20), bool)] * 2)
    cut.PixelData = cut.PixelData[:40]

    assert [one.reason for one in empty.refused] == [Reason.MARK_INVALID]
    assert [one.reason for one in read_segmentation(cut).refused] == [Reason.MARK_INVALID]
