"""`lesionary match`: the same lesion through a patient's studies."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import counted, note
from cli.options import (
    DEFAULT_LAKE,
    AsOfOption,
    CsvOption,
    FeatureSetOption,
    Format,
    JsonOption,
    LakeOption,
    PictureOption,
    StoreOption,
    T1Option,
    T2Option,
    WhereOption,
    chosen_format,
)
from cli.reading import reading
from cli.render import write_json, write_rows
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from store.match_runs import MatchRun

_COLUMNS = (
    "patient_id", "study", "study_day", "group_id", "state", "lesion_id", "lesion_type", "long_mm", "short_mm",
    "confidence",
)  # fmt: skip
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9_.+@-]{0,62}")


def match(
    patient: Annotated[
        str | None, typer.Argument(metavar="[PATIENT]", help="Its pseudonym, such as dl-000047.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Match every patient, and keep the answer as a run.")] = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="Keep the answer in lake and store under this name; --all keeps it under the feature set's name.",
        ),
    ] = None,
    t1: T1Option = None,
    t2: T2Option = None,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    feature_set: FeatureSetOption = "location",
    picture: PictureOption = None,
    growth_chart: Annotated[
        Path | None,
        typer.Option("--growth-chart", metavar="FILE.png", help="Also draw each lesion's diameter over time."),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Follow lesions through a patient's studies: baseline, new, persistent, vanished, merged or split.

    Distances are in the feature set's own scale. Vanished means no longer marked: readers do not mark everything.
    """
    from store.match_runs import MatchSettings, match_store

    form = chosen_format(as_json=as_json, as_csv=as_csv)
    _check(patient, run, every=every, drawn=picture is not None or growth_chart is not None)
    with reading(lake, store) as (path, connection):
        settings = MatchSettings(feature_set, t1, t2, patient, where, as_of)
        found = match_store(connection, path, settings)
        if picture is not None:
            from cli.figures.gallery import write_longitudinal

            write_longitudinal(lake, connection, found, picture)
            note(f"picture: {picture}")
        if growth_chart is not None:
            from cli.figures.gallery import write_growth

            write_growth(found, growth_chart)
            note(f"growth chart: {growth_chart}")
    _print(found, form, summary=every)
    if found.without_vector:
        left_out = counted(found.without_vector, "mark")
        note(f"not matched, without a vector in {found.feature_set.feature_set_id}: {left_out}")
    if every or run:
        _keep(lake, path, run or found.feature_set.name, found)


def _check(patient: str | None, run: str | None, *, every: bool, drawn: bool) -> None:
    if (patient is not None) == every:
        raise UsageError("name a patient, or say --all", next_step="see `lesionary match --help`")
    if every and drawn:
        raise UsageError("pictures show one patient", where="--all", next_step="name the patient instead")
    if run is not None and not _RUN_NAME.fullmatch(run):
        raise UsageError(
            "a run's name is 1 to 63 lower-case letters, digits and _ . + @ -",
            where="--run",
            next_step="choose another",
        )


def _print(found: "MatchRun", form: Format, *, summary: bool) -> None:
    described = {
        "feature_set": found.feature_set.feature_set_id,
        "t1": found.thresholds.t1,
        "t2": found.thresholds.t2,
        "patients": found.patients,
        "marks": len(found.marks),
        "lesions": found.groups,
        "without_vector": found.without_vector,
        "states": dict(sorted(found.states().items())),
    }
    if form is Format.JSON:
        rows = (dict(zip(_COLUMNS, row, strict=True)) for row in _rows(found))
        write_json(described | {"rows": list(rows), "edges": [asdict(edge) for edge in found.edges()]})
    elif summary and form is Format.TABLE:
        states = [(state, count) for state, count in described.pop("states").items()]  # type: ignore[attr-defined]
        write_rows(tuple(described), [tuple(described.values())], form)
        print()
        write_rows(("state", "rows"), states, form)
    else:
        write_rows(_COLUMNS, _rows(found), form)


def _rows(found: "MatchRun") -> Iterator[tuple[object, ...]]:
    for row in found.rows():
        mark = row.mark
        seen = (mark.lesion_id, mark.lesion_type, mark.long_mm, mark.short_mm) if mark else (None, None, None, None)
        day = row.study_day
        yield (row.patient_id, row.study, day, row.group_id, row.state, *seen, row.confidence)


def _keep(lake: str, path: Path, run: str, found: "MatchRun") -> None:
    from lesionary.lake import Lake
    from store.match_runs import land
    from store.sync import sync

    opened = Lake.open(lake)
    land(opened, run, found)
    sync(opened, path, index=None)
    note(f"kept as run {run}: lesionary sql \"FROM matches WHERE run = '{run}'\"")
