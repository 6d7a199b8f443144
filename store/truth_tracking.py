"""The public DeepLesion tracking pairs: one lesion in two studies, named by slice and RECIST points.

A record holds, for `source` and for `target`, `… recist slice` ("000016_01_01/008.png") and `… recist coordinate`
(eight numbers: x and y of the four ends, counted from zero, rounded to tenths). The lesion meant is the one on that
slice whose ends are nearest, if none of them is farther than `REACH_PX`.
"""

import math
import re
from pathlib import Path

from lesionary.errors import UsageError
from lesionary.json_text import parse_json
from store.truth_mentions import KnownLesions, Mention, in_one_namespace

REACH_PX = 2.0
"""Far more than rounding; in the public pairs the next lesion of a slice is at least 22 px away."""

_SLICE = re.compile(r"(?P<series>[^/\\]+)[/\\](?P<index>[0-9]{1,6})\.png")
_NEXT_STEP = "give the file as published"

End = tuple[str, int, tuple[float, ...]]
"""Series without namespace, slice index, eight zero-based coordinates."""


def tracking_pairs(path: Path, text: str, known: KnownLesions, namespace: str | None) -> list[tuple[Mention, Mention]]:
    """Both ends of every record.

    Raises:
        UsageError: it is no list of such records, or it fits lesions of several namespaces.
    """
    records = _records(path, text)
    ends = [_end(path, number, record, side) for number, record in records for side in ("source", "target")]
    rows = in_one_namespace(path, lambda space: [_nearest(known, space, end) for end in ends], known, namespace)
    mentions = [
        Mention(end if row is None else row, row, f"{end[0]}/{end[1]:03d} at {end[2][0]:g},{end[2][1]:g}")
        for end, row in zip(ends, rows, strict=True)
    ]
    return list(zip(mentions[::2], mentions[1::2], strict=True))


def _records(path: Path, text: str) -> list[tuple[int, dict[str, object]]]:
    """The records with their numbers, from 1."""
    try:
        records = parse_json(text)
    except ValueError as error:
        raise UsageError("it is not JSON that can be read", where=path.name, next_step=_NEXT_STEP) from error
    if not isinstance(records, list) or not records:
        raise UsageError("it is not a list of pairs", where=path.name, next_step=_NEXT_STEP)
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise UsageError(f"record {number} is not an object", where=path.name, next_step=_NEXT_STEP)
    return list(enumerate(records, start=1))


def _end(path: Path, number: int, record: dict[str, object], side: str) -> End:
    name = record.get(f"{side} recist slice")
    match = _SLICE.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise UsageError(
            f"record {number} names no {side} slice such as 000016_01_01/008.png",
            where=path.name,
            next_step=_NEXT_STEP,
        )
    points = record.get(f"{side} recist coordinate")
    numbers = points if isinstance(points, list) else []
    if len(numbers) != 8 or not all(type(value) in (int, float) and abs(value) < 1e6 for value in numbers):
        raise UsageError(f"record {number} has no eight {side} coordinates", where=path.name, next_step=_NEXT_STEP)
    return match["series"], int(match["index"]), tuple(float(value) for value in numbers)


def _nearest(known: KnownLesions, namespace: str, end: End) -> int | None:
    """The lesion on the end's slice whose farthest point is nearest, the earlier row of two; None beyond reach."""
    series, index, points = end
    within_reach = []
    for row in known.rows_on.get((f"{namespace}-{series}", index), ()):
        own = known.points_px[row] - known.first_centers[row]
        distances = [math.dist(own[place : place + 2], points[place : place + 2]) for place in range(0, 8, 2)]
        # A point that is not known is no distance at all, and so beyond reach.
        if all(distance <= REACH_PX for distance in distances):
            within_reach.append((max(distances), row))
    return min(within_reach)[1] if within_reach else None
