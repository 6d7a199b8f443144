"""Figures of answers: from what a command found, and the lake's images, to a file."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cli.console import counted
from cli.figures.growth import GrowthLine, growth_chart
from cli.figures.lesion_images import LesionImage, read_image, shown_window
from cli.figures.longitudinal import draw_longitudinal
from cli.figures.longitudinal_grid import Link, LinkKind, Sighting, State, StudyColumn
from cli.figures.patches import Patch, cut_patch, field_of_view_mm
from cli.figures.retrieval import RetrievalRow, Tile, draw_retrieval
from cli.figures.tiles import type_text
from lesionary.artifacts import atomic_file
from lesionary.errors import StoreError
from store.match_runs import group_number

if TYPE_CHECKING:
    import duckdb
    from PIL import Image

    from lesionary.slices import SliceReader
    from store.match_runs import MatchedRow, MatchRun
    from store.similar import Hit, Query

# Patches are cut finer than tiles are drawn, so that nothing is enlarged twice.
_PATCH_PX = 240


def write_retrieval(
    lake: str,
    connection: "duckdb.DuckDBPyConnection",
    answers: "Sequence[tuple[Query, list[Hit]]]",
    picture: Path,
    feature_set_id: str,
    shown: LesionImage | None = None,
) -> None:
    """Queries on the left, their hits beside them; `shown` is the image of a query that is no lesion of the lake."""
    with _reader(lake) as reader:
        rows = [
            RetrievalRow(
                _query_tile(reader, connection, query, shown),
                [_tile(reader, connection, hit.lesion_id, hit.distance) for hit in hits],
            )
            for query, hits in answers
        ]
    _save(draw_retrieval(rows, f"Similar lesions by {feature_set_id}"), picture)


def write_longitudinal(lake: str, connection: "duckdb.DuckDBPyConnection", found: "MatchRun", picture: Path) -> None:
    """One patient's studies as columns, its lesions as rows; a row's patches share one scale."""
    from store.queries import lesion

    rows = list(found.rows())
    facts = {row.mark.lesion_id: lesion(connection, row.mark.lesion_id) for row in rows if row.mark}
    with _reader(lake) as reader:
        images = {name: read_image(reader, fact) for name, fact in facts.items()}
    fields = _shared_fields(rows, images)
    ages = {str(fact["study_id"]): cast("float | None", fact["age_years"]) for fact in facts.values()}
    studies = {row.study: StudyColumn(row.study, row.study_day, ages.get(row.study_id)) for row in rows}
    sightings = [_sighting(row, images, fields) for row in rows]
    links = [
        Link(edge.from_lesion_id, edge.to_lesion_id, edge.confidence, cast("LinkKind", edge.kind))
        for edge in found.edges()
        if edge.kind != "same_study"
    ]
    seen = f"{counted(found.groups, 'lesion')} in {counted(len(studies), 'study', 'studies')}"
    title, subtitle = f"{rows[0].patient_id}: {seen}", f"matched by {_settings(found)}"
    if all(study.day is None for study in studies.values()):
        subtitle += "; days of the studies not known"
    columns = [studies[number] for number in sorted(studies)]
    _save(draw_longitudinal(columns, sightings, links, title, subtitle), picture)


def write_growth(found: "MatchRun", chart: Path) -> None:
    """One patient's long diameters over time; of several marks of a lesion in one study the largest counts.

    Raises:
        StoreError: none of the patient's lesions has a long diameter.
    """
    rows = list(found.rows())
    by_day = all(row.study_day is not None for row in rows)
    by_group: defaultdict[str, dict[float, float]] = defaultdict(dict)
    vanished: dict[str, float] = {}
    types: dict[str, str] = {}
    for row in rows:
        when = float(row.study_day if by_day and row.study_day is not None else row.study)
        if row.mark is None:
            vanished[row.group_id] = when
            continue
        if row.mark.lesion_type is not None:
            types.setdefault(row.group_id, row.mark.lesion_type)
        if row.mark.long_mm is not None:
            sizes = by_group[row.group_id]
            sizes[when] = max(row.mark.long_mm, sizes.get(when, 0.0))
    if not by_group:
        raise StoreError(
            f"no lesion of {rows[0].patient_id} has a long diameter",
            where="--growth-chart",
            next_step="leave the chart out",
        )
    lines = [
        GrowthLine(
            _line_name(group, types.get(group)), sorted(sizes), [sizes[day] for day in sorted(sizes)],
            vanished.get(group),
        )
        for group, sizes in sorted(by_group.items(), key=lambda item: group_number(item[0]))
    ]  # fmt: skip
    axis = "days since the patient's first study" if by_day else "study (not every day is known)"
    seen = f"{counted(len(lines), 'lesion')} in {counted(len({row.study for row in rows}), 'study', 'studies')}"
    content = growth_chart(lines, f"{rows[0].patient_id}: {seen}, matched by {_settings(found)}", axis)
    write_chart(content, chart)


def write_chart(content: bytes, file: Path) -> None:
    """A chart's PNG to a file, all of it or nothing."""
    with atomic_file(file) as sink:
        sink.write(content)


def _query_tile(
    reader: "SliceReader", connection: "duckdb.DuckDBPyConnection", query: "Query", shown: LesionImage | None
) -> Tile:
    if query.lesion_id is None and shown is not None:
        return Tile(lesion_patch(shown, None), "image", None, None, None, None, None)
    if query.lesion_id is None:
        return Tile(None, None, None, None, None, None, None, tuple(query.vector.tolist()))
    return _tile(reader, connection, query.lesion_id, None)


def _tile(
    reader: "SliceReader", connection: "duckdb.DuckDBPyConnection", lesion_id: str, distance: float | None
) -> Tile:
    from store.queries import lesion

    fact: dict[str, Any] = lesion(connection, lesion_id)
    image = read_image(reader, fact)
    patch = None if image is None else lesion_patch(image, None)
    return Tile(patch, lesion_id, fact["patient_id"], fact["lesion_type"], fact["long_mm"], fact["short_mm"], distance)


def _sighting(row: "MatchedRow", images: dict[str, LesionImage | None], fields: dict[str, float]) -> Sighting:
    mark, group = row.mark, group_number(row.group_id)
    if mark is None:
        return Sighting(None, None, row.study, group, None, None, "vanished")
    image = images[mark.lesion_id]
    patch = None if image is None else lesion_patch(image, fields[row.group_id])
    state = cast("State", row.state)
    return Sighting(
        patch, mark.lesion_id, row.study, group, mark.long_mm, mark.short_mm, state, row.confidence, mark.lesion_type
    )


def _shared_fields(rows: "Sequence[MatchedRow]", images: dict[str, LesionImage | None]) -> dict[str, float]:
    """What each lesion's patches show from side to side, so that growth can be seen."""
    fields: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        image = images[row.mark.lesion_id] if row.mark else None
        if image is not None:
            shown = field_of_view_mm(image.tight_box_xyxy_px, image.spacing_xy_mm)
            fields[row.group_id] = max(fields[row.group_id], shown)
    return fields


def lesion_patch(image: LesionImage, field_mm: float | None = None) -> Patch:
    """The lesion and what is around it, in a window that shows it; `field_mm` from side to side where given."""
    window_hu = shown_window(image.hu, image.tight_box_xyxy_px, image.window_hu)
    return cut_patch(
        image.hu, image.tight_box_xyxy_px, image.points_xy_px, image.spacing_xy_mm, window_hu, side_px=_PATCH_PX,
        field_mm=field_mm,
    )  # fmt: skip


def _line_name(group: str, lesion_type: str | None) -> str:
    return f"lesion {group_number(group)}" + ("" if lesion_type is None else f", {type_text(lesion_type)}")


def _settings(found: "MatchRun") -> str:
    return f"{found.feature_set.feature_set_id} (T1 {found.thresholds.t1:.3g}, T2 {found.thresholds.t2:.3g})"


def _reader(lake: str) -> "SliceReader":
    from lesionary.lake import Lake
    from lesionary.slices import SliceReader

    return SliceReader(Lake.open(lake))


def _save(picture: "Image.Image", file: Path) -> None:
    with atomic_file(file) as sink:
        picture.save(sink, format="PNG")
