"""Which slices a picture of detections shows, and what belongs on them: out of the lake, or out of a folder."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.detectors import category_names, category_text
from cli.figures.detections import ShownBox, SliceTile, draw_detections
from cli.figures.lesion_images import DEFAULT_WINDOW_HU, shown_window
from etl.body import body_box
from lesionary.artifacts import atomic_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cli.figures.sheet import Box
    from etl.detect_folder import FolderFindings
    from etl.detect_slices import DetectSettings
    from etl.detect_tasks import DetectorModel, SeriesChoice
    from lesionary.lake import Lake

_SLICES_DRAWN = 6
_MARGIN_MM = 12.0


def draw_folder(found: "FolderFindings", model: "DetectorModel", names: Mapping[int, str], picture: Path) -> bool:
    """The slices of a folder with the surest detections; whether there was any."""
    from etl.detect_folder import surest

    by_slice: dict[tuple[int, int], list[ShownBox]] = {}
    sources = {one.number: one for one in found.series}
    for series, one in surest(found.series):
        key = series.number, one.slice_index
        if key in by_slice or len(by_slice) < _SLICES_DRAWN:
            shown = ShownBox(one.box_xyxy_px, one.score, category_text(names, one.category, model))
            by_slice.setdefault(key, []).append(shown)
    tiles = []
    for (number, index), boxes in by_slice.items():
        source = sources[number]
        hu = source.read("", index)
        tiles.append(_tile(f"series {number}, slice {index}", hu, source.spacing_xy_mm, None, boxes))
    return _save(tiles, model, picture)


def draw_lake(
    lake: "Lake", model: "DetectorModel", choice: "SeriesChoice", settings: "DetectSettings", picture: Path
) -> bool:
    """The slices of the lake's chosen series with the surest detections, and what is marked on them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from etl.detect_tasks import SOURCES, choose_series
    from lesionary.detection_tables import DETECTION_BOXES, DETECTIONS
    from lesionary.slices import SliceReader

    versions = {name: lake.shards(name)[0] for name in SOURCES}
    chosen = [one.series_id for one in choose_series(lake, choice, settings, versions).usable]
    columns = ["detection_id", "unit_id", "series_id", "slice_index", "score", "category"]
    in_chosen = pc.field("series_id").isin(pa.array(chosen, pa.string()))
    of_model = (pc.field("model_id") == model.model_id) & in_chosen
    rows = lake.read(DETECTIONS.name, columns=columns, where=of_model).to_pylist()
    rows.sort(key=lambda row: (-row["score"], row["detection_id"]))
    wanted = list(dict.fromkeys((row["series_id"], row["slice_index"]) for row in rows))[:_SLICES_DRAWN]
    if not wanted:
        return False
    named = {row["detection_id"]: row for row in rows}
    units = sorted({row["unit_id"] for row in rows if (row["series_id"], row["slice_index"]) in wanted})
    boxes = lake.read(DETECTION_BOXES.name, where=pc.field("unit_id").isin(units)).to_pylist()
    names = category_names(lake, model)
    by_slice: defaultdict[tuple[str, int], list[ShownBox]] = defaultdict(list)
    for row in sorted(boxes, key=lambda row: (-row["score"], row["detection_id"])):
        detection = named[row["detection_id"]]
        shown = ShownBox(
            tuple(row["box_xyxy_px"]), row["score"], category_text(names, detection["category"], model)
        )  # fmt: skip
        by_slice[detection["series_id"], row["slice_index"]].append(shown)
    series, marks = _described(lake, wanted), _marks(lake, wanted)
    with SliceReader(lake) as reader:
        tiles = [
            _tile(
                f"{series_id}, slice {index}", reader.read(series_id, index), _spacing(series[series_id]),
                _window(series[series_id]), by_slice[series_id, index], marks[series_id, index],
            )
            for series_id, index in wanted
        ]  # fmt: skip
    return _save(tiles, model, picture)


def _described(lake: "Lake", wanted: Sequence[tuple[str, int]]) -> dict[str, dict[str, Any]]:
    import pyarrow.compute as pc

    columns = ["series_id", "spacing_x_mm", "spacing_y_mm", "window_low_hu", "window_high_hu"]
    where = pc.field("series_id").isin([series_id for series_id, _ in wanted])
    return {row["series_id"]: row for row in lake.read("series", columns=columns, where=where).to_pylist()}


def _marks(lake: "Lake", wanted: Sequence[tuple[str, int]]) -> defaultdict[tuple[str, int], list["Box"]]:
    """Boxes of marked lesions on these slices, zero-based."""
    import pyarrow.compute as pc

    from lesionary.recist import FIRST_CENTERS

    columns = ["lesion_id", "series_id", "slice_index", "box_xyxy_px", "coord_convention"]
    where = pc.field("series_id").isin([series_id for series_id, _ in wanted])
    found: defaultdict[tuple[str, int], list[Box]] = defaultdict(list)
    for row in lake.read("lesions", columns=columns, where=where).sort_by("lesion_id").to_pylist():
        origin = FIRST_CENTERS[row["coord_convention"]]
        x0, y0, x1, y1 = (edge - origin for edge in row["box_xyxy_px"])
        found[row["series_id"], row["slice_index"]].append((x0, y0, x1, y1))
    return found


def _spacing(series: Mapping[str, Any]) -> tuple[float, float]:
    return float(series["spacing_x_mm"]), float(series["spacing_y_mm"])


def _window(series: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = series["window_low_hu"], series["window_high_hu"]
    return (low, high) if low is not None and high is not None and low < high else None


def _tile(
    name: str,
    hu: "NDArray[np.int16]",
    spacing_xy_mm: tuple[float, float],
    window_hu: tuple[float, float] | None,
    detections: Sequence[ShownBox],
    marks: Sequence["Box"] = (),
) -> SliceTile:
    """The body on a slice, in a window that shows the surest detection."""
    rows, columns = hu.shape
    left, top, right, bottom = body_box(hu) or (0.0, 0.0, columns - 1.0, rows - 1.0)
    across, down = (_MARGIN_MM / spacing for spacing in spacing_xy_mm)
    # Whatever is drawn is shown, body or not.
    boxes = [one.box_xyxy_px for one in detections] + list(marks)
    low = [min(edge, *(box[at] for box in boxes)) for at, edge in enumerate((left, top))]
    high = [max(edge, *(box[at] for box in boxes)) + 1 for at, edge in enumerate((right, bottom), 2)]
    shown = (
        max(0.0, low[0] - across), max(0.0, low[1] - down), min(columns, high[0] + across), min(rows, high[1] + down)
    )  # fmt: skip
    window = shown_window(hu, detections[0].box_xyxy_px, window_hu or DEFAULT_WINDOW_HU)
    return SliceTile(name, hu, shown, spacing_xy_mm, window, detections, marks)


def _save(tiles: Sequence[SliceTile], model: "DetectorModel", picture: Path) -> bool:
    if not tiles:
        return False
    image = draw_detections(tiles, f"What {model.model_id} is surest of")
    with atomic_file(picture) as sink:
        image.save(sink, format="PNG")
    return True
