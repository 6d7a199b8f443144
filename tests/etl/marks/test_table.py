"""Plain tables of marks: what they may hold, what costs a row, and what is no table of marks at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.marks.model import Convention, Report, Shape
from etl.marks.table import read_table
from etl.quality import Flag, Reason

HEADER = (
    "sop_instance_uid,long_x1,long_y1,long_x2,long_y2,short_x1,short_y1,short_x2,short_y2,"
    "stated_long,stated_unit,finding_site,comment"
)
ROW = "1.2.3.4,10,20,50,20,30,8,30,30,32.1,mm,SCT:10200004,Jane Doe"


def table(*rows, header=HEADER):
    return ("\n".join([header, *rows]) + "\n").encode()


def test_row_becomes_a_mark_and_its_free_text_does_not():
    report = read_table(table(ROW))

    (mark,) = report.marks
    assert (mark.shape, mark.convention) == (Shape.BIDIRECTIONAL, Convention.ZERO_BASED)
    assert (mark.long_axis, mark.short_axis) == (((10, 20), (50, 20)), ((30, 8), (30, 30)))
    assert (mark.stated_long, mark.stated_unit, mark.finding_site) == (32.1, "mm", "SCT:10200004")
    assert "Doe" not in repr(report)


def test_short_axis_may_be_missing():
    (mark,) = read_table(table("1.2.3.4,10,20,50,20,,,,,,,,")).marks

    assert (mark.shape, mark.short_axis) == (Shape.LENGTH, None)
    assert Flag.NO_SHORT_AXIS in mark.flags


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW.replace("10,", "ten,", 1), Reason.COORDINATES_INVALID),
        (ROW.replace("10,", "nan,", 1), Reason.COORDINATES_INVALID),
        (ROW.replace("1.2.3.4", "Jane Doe"), Reason.MARK_INVALID),
        (ROW + ",one,too,many", Reason.ROW_MALFORMED),
        ("1.2.3.4,1", Reason.ROW_MALFORMED),
    ],
)
def test_bad_row_costs_one_row(row, reason):
    report = read_table(table(row, ROW))

    assert len(report.marks) == 1
    assert [(one.member, one.reason) for one in report.refused] == [("item 1 of a report", reason)]


def test_json_says_the_same():
    row = dict(zip(HEADER.split(","), ROW.split(","), strict=True))
    listed, wrapped = json.dumps([row]).encode(), json.dumps({"marks": [row]}).encode()

    marks = [read_table(data).marks[0] for data in (listed, wrapped, table(ROW))]

    assert marks[0] == marks[1] == marks[2]


def test_convention_is_read_and_an_unknown_one_costs_the_row():
    rows = [f"1.2.3.4,1,2,3,4,{convention}" for convention in ("one_based", "half_based", "two_based")]
    report = read_table(table(*rows, header="sop_instance_uid,long_x1,long_y1,long_x2,long_y2,coord_convention"))

    assert [mark.convention for mark in report.marks] == [Convention.ONE_BASED, Convention.HALF_BASED]
    assert len(report.refused) == 1


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"{}", b"[1, 2]", b"\xff\xfe", b'{"marks": 3}', b"[" * 100_000])
def test_other_files_are_no_tables_of_marks(data):
    assert read_table(data) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: (HEADER + "\n" + text).encode(errors="ignore")))
def test_any_bytes_give_a_report_or_nothing(data):
    assert read_table(data) is None or isinstance(read_table(data), Report)
