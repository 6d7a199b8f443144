"""Targets that leave Python: conditions that the engine parses, and whole files in the supervised child."""

import contextlib
from functools import cache

from fuzz.contract import Target, require, scratch, scratch_file
from fuzz.element_mutations import mutated_dicom
from fuzz.json_targets import check_error
from fuzz.mutations import mutated_bytes, nasty_text
from fuzz.report_checks import check_refused, check_report
from small_stores import make_store

from etl.archive import SourceTree
from etl.containers import Container, Member
from etl.dicom_images import ImageHeader
from etl.marks.model import Report
from etl.pacs_files import EncodedSlice, EncodeSlice, LookAtFile
from etl.planning import LIMITS
from etl.quality import Quarantined, RefusedError
from etl.supervision import Child, ChildLimits
from lesionary.errors import StoreError
from lesionary.locations import open_location
from store.conditions import checked_condition
from store.database import open_reader

_NAMES = ("t-1", "t-2", "t-3")
_WORDS = (
    "long_mm", "lesion_type", "lesion_id", "lesions", "(", ")", "AND", "OR", "NOT", "=", "<", ">", "'liver'", "1",
    "NULL", "IN", "SELECT", "FROM", "UNION", ";", "--", "/*", "*/", "read_text('/etc/passwd')", "EXISTS", "COUNT(*)",
    ",", "CASE", "WHEN", "THEN", "END", "::", "INTEGER", "$1", "?", "x ->", "[1]", "{'a': 1}", "WINDOW", "OVER", "true",
    "LIKE",
)  # fmt: skip


@cache
def _reader():
    store = make_store(
        scratch() / "f.duckdb", [{"lesion_id": name, "long_mm": 10.0 * at} for at, name in enumerate(_NAMES)]
    )
    return contextlib.ExitStack().enter_context(open_reader(store))


def run_condition(data: bytes) -> None:
    """A condition: refused, or one that chooses among the rows there are and changes none."""
    text = data.decode("utf-8", "replace")
    connection = _reader()
    try:
        checked_condition(connection, text, seconds=3.0)
    except StoreError as error:
        check_error(error)
        return
    try:
        found = connection.execute(
            f"SELECT lesion_id FROM features.lesion_features AS lesion_features WHERE ({text}\n) LIMIT 100"
        ).fetchall()
    except Exception as error:  # noqa: BLE001 (the engine's own errors have no common root that it exports)
        require(type(error).__module__.startswith(("duckdb", "_duckdb")), f"{type(error).__name__} at run time")
        return
    require({name for (name,) in found} <= set(_NAMES) and len(found) <= len(_NAMES), "rows that are not there")


def condition_seeds() -> list[bytes]:
    return [
        b"lesion_type = 'liver' AND long_mm > 10", b"lesion_id IN (SELECT lesion_id FROM lesions) OR long_mm IS NULL",
        b"CASE WHEN long_mm > 1 THEN true ELSE false END", b"1) FROM lesions; DELETE FROM lake_rows.lesions --",
        b"list_contains([1, 2], 1) AND lesion_id LIKE 't-%'",
    ]  # fmt: skip


def mutated_condition(data, rng):
    """Words of the language put in, taken out and moved."""
    if rng.random() < 0.2:
        return mutated_bytes(data, rng)
    words = data.decode("utf-8", "replace").split(" ")
    at = rng.randrange(len(words))
    match rng.randrange(4):
        case 0:
            words[at] = rng.choice(_WORDS)
        case 1:
            words.insert(at, rng.choice(_WORDS) if rng.random() < 0.8 else nasty_text(rng))
        case 2:
            del words[at]
        case _:
            words[at:at] = words[max(0, at - 4) : at]
    return " ".join(words).encode("utf-8", "replace")


# Its keeper starts it, again after it died, and unpickles its answers.
_KEEPING_A_CHILD = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "pickle.find_class"})


@cache
def _child() -> Child:
    return Child(ChildLimits(memory_bytes=1 << 30, seconds=5.0))


def run_supervised(data: bytes) -> None:
    """A whole file in the child, decoders and all: an answer for each request, and a child for the next one."""
    scratch_file("file.csv", data)
    tree = SourceTree([Container(open_location(str(scratch())))], LIMITS)
    ((_, found),) = _child().map(LookAtFile(tree), [Member(0, "file.csv", len(data), 0)])
    if isinstance(found, RefusedError):
        check_refused(Quarantined("file", "a file", found.reason, found.detail))
        return
    if isinstance(found, Report):
        check_report(found)
        return
    require(all(isinstance(one, ImageHeader) for one in found), "headers")
    for _, made in _child().map(EncodeSlice(tree), found[:2]):
        require(isinstance(made, EncodedSlice | RefusedError), "pixels or a refusal")


def supervised_seeds() -> list[bytes]:
    from fuzz import dicom_seeds, text_targets

    marks = [dicom_seeds.report_seeds()[0], dicom_seeds.gsps_seeds()[0], text_targets.marks_table_seeds()[0]]
    return [*dicom_seeds.image_seeds(), *marks]


TARGETS = (
    Target(
        "condition", "store.conditions.checked_condition", run_condition, condition_seeds, mutated_condition, 512,
        prepare=_reader,
    ),
    Target(
        "supervised", "etl.supervision.Child: LookAtFile, EncodeSlice", run_supervised, supervised_seeds, mutated_dicom,
        8192, seconds=10.0, memory_mb=2048, may=_KEEPING_A_CHILD,
    ),
)  # fmt: skip
