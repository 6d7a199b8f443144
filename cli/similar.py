"""`lesionary similar`: lesions that are near others in a feature set."""

import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import note
from cli.image_query import NEWEST_OF_A_MODEL, ImageOptions, look_at
from cli.options import (
    DEFAULT_LAKE,
    CsvOption,
    FeatureSetOption,
    JsonOption,
    LakeOption,
    PictureOption,
    StoreOption,
    WhereOption,
    chosen_format,
    numbers_of,
)
from cli.reading import reading
from cli.render import write_rows
from lesionary.errors import StoreError, UsageError

if TYPE_CHECKING:
    from store.similar import Hit, Query, Searcher

_COLUMNS = ("query", "rank", "distance", "lesion_id", "patient_id", "study_id", "lesion_type", "long_mm", "short_mm")
_NAMED_OTHERWISE = {"lesion_id": "detection_id", "lesion_type": "category_name"}
# Answers are found, named and printed some queries at a time: thousands of them need no more memory than these.
_QUERIES_AT_ONCE = 512
_MOST_DRAWN = 10
_MOST_DRAWN_HITS = 20


class Among(StrEnum):
    """What is searched."""

    LESIONS = "lesions"
    DETECTIONS = "detections"


def similar(
    context: typer.Context,
    lesions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LESION]…", help="Names such as dl-4711; names of detections serve as well."),
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option("--vector", metavar="X,Y,…", help="Look up this vector of the feature set instead of a lesion."),
    ] = None,
    listed: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Look up every lesion named in this file, one a line; - = stdin."),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Look up a lesion on this DICOM or 16-bit PNG; needs --box."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            "--box",
            metavar="X1,Y1,X2,Y2",
            help="Tight around the lesion on --image, in pixels; the first pixel's centre is 0,0.",
        ),
    ] = None,
    frame: Annotated[
        int | None, typer.Option("--slice", metavar="N", help="Which slice of a multi-frame --image, from 1.")
    ] = None,
    spacing_mm: Annotated[
        str | None,
        typer.Option(
            "--spacing-mm",
            metavar="X[,Y[,Z]]",
            help="Size of a pixel of --image, and distance of slices; a PNG does not say it.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many similar lesions for each.")] = 10,
    where: WhereOption = None,
    among: Annotated[
        Among,
        typer.Option("--among", help="Search marked lesions, or detections; then --where is over detection_features."),
    ] = Among.LESIONS,
    any_patient: Annotated[
        bool,
        typer.Option("--any-patient/--other-patients", help="Whether lesions of the same patient count as well."),
    ] = False,
    feature_set: FeatureSetOption = "location+size",
    picture: PictureOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Find similar lesions, nearest first, by Euclidean distance in a feature set.

    Detections are compared by a model's vectors: see `lesionary embed --detections`.

    For example: lesionary similar dl-4711 -k 5 --where "lesion_type = 'liver' AND age_years < 50"
    """
    from lesionary.identifiers import is_detection
    from store.members import DETECTIONS, LESIONS
    from store.similar import Searcher, newest_with_detections

    form = chosen_format(as_json=as_json, as_csv=as_csv)
    if bool(lesions) + (vector is not None) + (listed is not None) + (image is not None) != 1:
        raise UsageError(
            "name lesions, or give --vector, --from or --image", next_step="see `lesionary similar --help`"
        )
    columns = _COLUMNS if among is Among.LESIONS else [_NAMED_OTHERWISE.get(name, name) for name in _COLUMNS]
    label = "vector" if image is None else image.name
    wish = ImageOptions(image, box, frame, spacing_mm).wish()
    by_itself = _left_out(context, "feature_set")
    if wish is not None and by_itself:
        feature_set = NEWEST_OF_A_MODEL
    with reading(lake, store) as (path, connection):
        if wish is None and by_itself and (among is Among.DETECTIONS or any(map(is_detection, lesions or ()))):
            feature_set = newest_with_detections(connection)
            note(f"searched by {feature_set}, the newest feature set that has detections")
        seen = None if wish is None else look_at(lake, connection, feature_set, wish)
        searcher = Searcher(
            connection, path, feature_set if seen is None else seen.feature_set_id,
            among=DETECTIONS if among is Among.DETECTIONS else LESIONS,
        )  # fmt: skip
        queries = (
            _queries(searcher, lesions or [], vector, listed)
            if seen is None
            else [searcher.query_for_vector(seen.vector)]
        )
        allowed = None if where is None else searcher.allowed_rows(where)

        def answers(part: "Sequence[Query]") -> "list[tuple[Query, list[Hit]]]":
            found = searcher.search(part, k, allowed=allowed, same_patient=any_patient)
            return list(zip(part, searcher.hits(found, k), strict=True))

        if picture is None:
            parts = (queries[at : at + _QUERIES_AT_ONCE] for at in range(0, len(queries), _QUERIES_AT_ONCE))
            write_rows(columns, _rows((pair for part in parts for pair in answers(part)), label), form)
            return
        _refuse_too_many(len(queries), k)
        drawn = answers(queries)
        from cli.figures.gallery import write_retrieval

        # Before anything is printed: whoever reads may close the pipe early.
        shown = None if seen is None else seen.image
        write_retrieval(lake, connection, drawn, picture, searcher.feature_set.feature_set_id, shown)
        note(f"picture: {picture}")
        write_rows(columns, _rows(iter(drawn), label), form)


def _left_out(context: typer.Context, name: str) -> bool:
    """Whether an option has its default, neither typed nor set in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name.startswith("DEFAULT")


def _queries(searcher: "Searcher", lesions: Sequence[str], vector: str | None, listed: str | None) -> "list[Query]":
    from store.similar import complain_of

    if vector is not None:
        return [searcher.query_for_vector(numbers_of(vector, "--vector"))]
    if listed is None:
        queries, unknown, without = searcher.queries_for(lesions)
        complain_of(unknown, without, searcher.feature_set)
        return queries
    names = _names(listed)
    queries, unknown, without = searcher.queries_for(names)
    if unknown or without:
        note(
            f"{len(names)} lesions = {len(queries)} looked up + {len(unknown)} not in the store + "
            f"{len(without)} without a vector in {searcher.feature_set.feature_set_id}"
        )
    if not queries:
        raise StoreError(
            f"none of the {len(names)} lesions can be looked up",
            where="--from",
            next_step="check the names and the set",
        )
    return queries


def _names(source: str) -> list[str]:
    try:
        # Editors on Windows put a mark of the encoding in front.
        text = sys.stdin.read().removeprefix("\ufeff") if source == "-" else Path(source).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(
            f"the list cannot be read ({type(cause).__name__})",
            where="--from",
            next_step="give a text file, one name a line",
        ) from cause
    names = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not names:
        raise UsageError("the list names no lesion", where="--from", next_step="give one name a line")
    return names


def _refuse_too_many(queries: int, k: int) -> None:
    if queries > _MOST_DRAWN or k > _MOST_DRAWN_HITS:
        raise UsageError(
            f"a picture holds {_MOST_DRAWN} lesions with {_MOST_DRAWN_HITS} hits each, asked for {queries} with {k}",
            where="--picture",
            next_step="name fewer, or lower -k",
        )


def _rows(answers: "Iterator[tuple[Query, list[Hit]]]", label: str) -> Iterator[tuple[object, ...]]:
    for query, hits in answers:
        for hit in hits:
            yield (
                query.lesion_id or label, hit.rank, hit.distance, hit.lesion_id, hit.patient_id, hit.study_id,
                hit.lesion_type, hit.long_mm, hit.short_mm,
            )  # fmt: skip
