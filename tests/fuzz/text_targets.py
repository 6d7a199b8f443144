"""Targets: text that people hand in. The release's table, tables of marks, AIM annotations."""

import math
import re

from fuzz.contract import CANARY, Target, require
from fuzz.mutations import mutated_csv, mutated_json, mutated_xml
from fuzz.report_checks import check_refused, check_report

from etl.annotations import AnnotationTable, parse_annotations
from etl.marks.aim import read_aim
from etl.marks.table import read_table
from etl.quality import Flag, Quarantined, RefusedError
from lesionary.errors import SourceError

_FINITE_FIELDS = ("points", "stated_px", "location", "spacing_mm", "window_hu")
_RAW = re.compile(r"[0-9eE+\-., _/\\A-Za-z]{0,200}", re.ASCII)


def run_annotations(data: bytes) -> None:
    """The release's table: found = taken + quarantined, whatever stands in it."""
    try:
        table = parse_annotations(data)
    except SourceError:
        return
    require(isinstance(table, AnnotationTable) and table.found == len(table.rows) + len(table.quarantined), "counts")
    numbers = sorted([row.number for row in table.rows] + [int(one.member[4:]) for one in table.quarantined])
    require(numbers == list(range(1, table.found + 1)), "row numbers")
    for one in table.quarantined:
        check_refused(one)
    for row in table.rows:
        for name in _FINITE_FIELDS:
            values = getattr(row, name) or ()
            require(all(value is None or math.isfinite(value) for value in values), name)
        require(row.age_years is None or 0 <= row.age_years <= 130, "age")
        require(row.slice_range is None or row.slice_range[0] <= row.slice_range[1], "range")
        require(all(isinstance(flag, Flag) for flag in row.flags), "flags")
        require(all(text is None or _RAW.fullmatch(text) for text in row.raw), "raw text")
    require(CANARY not in repr(table), "free text of the table came along")


def annotation_seeds() -> list[bytes]:
    from conftest import annotation_csv, annotation_row

    return [
        annotation_csv(annotation_row()),
        annotation_csv(
            annotation_row(),
            annotation_row(Patient_age="", Patient_gender=CANARY, Spacing_mm_px_="0, 0.8, nan"),
            annotation_row(File_name="Images_png/000001_01_01/005.png", Coarse_lesion_type="9", Slice_range="9, 1"),
        ),
        b"\xef\xbb\xbf" + annotation_csv(annotation_row(DICOM_windows="-160.5, 240")).replace(b"\n", b"\r\n"),
    ]


def run_marks_table(data: bytes) -> None:
    """A table of marks as CSV or JSON: None when it is none."""
    report = read_table(data)
    if report is not None:
        check_report(report)


def marks_table_seeds() -> list[bytes]:
    header = (
        "sop_instance_uid,long_x1,long_y1,long_x2,long_y2,short_x1,short_y1,short_x2,short_y2,coord_convention,"
        "frame_number,stated_long,stated_short,stated_unit,finding_site,finding,patient_id,study_instance_uid,"
        "tracking_uid,note"
    )
    row = f"1.2.3.4,1,2,31,2,10,1,10,9,one_based,2,30,8,mm,SCT:10200004,SCT:4147007,{CANARY},1.2.3,1.2.9,{CANARY}"
    short = b"sop_instance_uid,long_x1,long_y1,long_x2,long_y2\n1.2.3.4,1,2,3,4\n1.2.3.5,1,2\n"
    as_json = (
        '{"marks": [{"sop_instance_uid": "1.2.3.4", "long_x1": 1, "long_y1": 2.5, "long_x2": 3, "long_y2": 4, '
        '"frame_number": 3, "stated_long": 2.5, "stated_unit": "cm", "finding_site": "SCT:10200004", '
        f'"note": "{CANARY}"}}]}}'
    )
    return [f"{header}\n{row}\n{row}\n".encode(), short, as_json.encode(), as_json[10:-1].encode()]


def mutated_table(data, rng):
    return (mutated_json if data[:1] in {b"[", b"{"} else mutated_csv)(data, rng)


def run_aim(data: bytes) -> None:
    """AIM as XML, versions 3 and 4."""
    try:
        report = read_aim(data)
    except RefusedError as refusal:
        check_refused(Quarantined("file", "a file", refusal.reason, refusal.detail))
        return
    check_report(report)


def aim_seeds() -> list[bytes]:
    from fuzz.planted import LESION, NAMES, WHO

    from etl.phantom.pacs_marks import aim_annotation

    version_3 = f"""<ImageAnnotation xmlns="gme://caCORE.caCORE/3.2/edu.northwestern.radiology.AIM" aimVersion="3.0"
 uniqueIdentifier="1.2.840.1" dateTime="2009-05-31T18:38:51" name="{CANARY}"><calculationCollection><Calculation
 codeValue="G-A185" codingSchemeDesignator="SRT"><calculationResultCollection><CalculationResult
 unitOfMeasure="mm"><calculationDataCollection><CalculationData value="30.5"/></calculationDataCollection>
</CalculationResult></calculationResultCollection></Calculation></calculationCollection><person><Person id="P1"
 name="{CANARY}"/></person><imageReferenceCollection><ImageReference><imageStudy><ImageStudy instanceUID="1.2.3"
 startDate="2000-01-02T00:00:00"/></imageStudy></ImageReference></imageReferenceCollection><geometricShapeCollection>
<GeometricShape><spatialCoordinateCollection><SpatialCoordinate coordinateIndex="0" imageReferenceUID="1.2.4"
 referencedFrameNumber="1" x="10" y="20"/><SpatialCoordinate coordinateIndex="1" imageReferenceUID="1.2.4"
 referencedFrameNumber="1" x="40" y="21"/></spatialCoordinateCollection></GeometricShape></geometricShapeCollection>
</ImageAnnotation>"""
    return [version_3.encode(), aim_annotation(LESION, NAMES, WHO)]


TARGETS = (
    Target("annotations", "etl.annotations.parse_annotations", run_annotations, annotation_seeds, mutated_csv, 5000),
    Target("marks_table", "etl.marks.table.read_table", run_marks_table, marks_table_seeds, mutated_table, 8192),
    Target("aim", "etl.marks.aim.read_aim", run_aim, aim_seeds, mutated_xml, 8192),
)
