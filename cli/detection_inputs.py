"""Detections that `lesionary evaluate detection` reads out of a lake, beside what they are compared with."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cli.detection_truth import ImagePlaces, LakeTruth, TruthCounts, TruthRequest, lake_truth
from lesionary.anatomy import LESION_TYPES
from lesionary.errors import UsageError
from trainers.detector.evaluation_data import UNKNOWN, Detections, SliceBoxes, Truth, grown
from trainers.detector.protocols import Dimensions

if TYPE_CHECKING:
    import pyarrow as pa

    from lesionary.lake import Lake

READ_TABLES = ("series", "lesions", "detection_series", "detections", "detection_boxes")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One set of detections, and the truth it is compared with."""

    name: str
    truth: Truth
    detections: Detections
    type_names: Sequence[str]
    category_names: Sequence[str]
    detections_elsewhere: int = 0
    """On slices, or in sub-volumes, that do not count."""


def lake_contestants(
    lake: "Lake", wanted: Sequence[str], request: TruthRequest
) -> tuple[list[Contestant], TruthCounts]:
    """What models have found in a lake, all compared with the same lesions: of series that all have looked at.

    Args:
        lake: where they looked.
        wanted: ids or names of models; none = all that have looked at anything.
        request: which lesions count.

    Raises:
        UsageError: a model has looked at nothing, or nothing is left to compare.
    """
    whole = request.dimensions is not Dimensions.SLICE
    looked = _looked_at(lake, whole=whole)
    if not looked:
        raise UsageError(
            f"no detector has looked {'through whole series' if whole else 'at anything'} here yet",
            where=lake.url,
            next_step=f"run `lesionary detect` {'without --key-slices' if whole else 'first'}",
        )
    models = _chosen(looked, wanted)
    common = set.intersection(*(looked[model_id] for model_id in models))
    held = lake_truth(lake, common, request)
    return [_contestant(lake, model_id, held, request) for model_id in models], held.counts


def _looked_at(lake: "Lake", *, whole: bool) -> dict[str, set[str]]:
    """Model to the series that it has looked at; `whole`: those of which it has looked at every slice."""
    looked: dict[str, set[str]] = {}
    if lake.has_table("detection_series"):
        for row in lake.read("detection_series", columns=["model_id", "series_id", "scope"]).to_pylist():
            if not whole or row["scope"] == "all":
                looked.setdefault(row["model_id"], set()).add(row["series_id"])
    return looked


def _chosen(looked: Mapping[str, set[str]], wanted: Sequence[str]) -> list[str]:
    """Ids of the models that are meant: by id, or the newest of a name."""
    known = sorted(looked, key=lambda model_id: (_base(model_id)[0], _base(model_id)[1]))
    found = []
    for one in wanted or known:
        named = [model_id for model_id in known if one in (model_id, _base(model_id)[0])]
        if not named:
            raise UsageError(
                f"{one!r} has looked at nothing here",
                where="--model",
                next_step=f"models that have: {', '.join(known)}",
            )
        found.append(one if one in named else named[-1])
    return list(dict.fromkeys(found))


def _base(model_id: str) -> tuple[str, int]:
    name, _, number = model_id.rpartition("-")
    return (name, int(number)) if name and number.isdigit() else (model_id, 0)


def _contestant(lake: "Lake", model_id: str, held: LakeTruth, request: TruthRequest) -> Contestant:
    import pyarrow.compute as pc

    units = sorted({f"{model_id}/{series_id}" for series_id, _, _ in held.images})
    ours = pc.is_in(pc.field("unit_id"), _texts(units))
    columns = ["detection_id", "series_id", "slice_index", "first_slice_index", "last_slice_index", "box_xyxy_px"]
    columns += ["score", "category", "category_model_id"]
    found = lake.read("detections", columns=columns, where=ours)
    boxes = lake.read(
        "detection_boxes", columns=["unit_id", "detection_id", "slice_index", "box_xyxy_px", "score"], where=ours
    )
    categories = found["category"].fill_null(UNKNOWN).to_numpy()
    if request.dimensions is Dimensions.SLICE:
        detections, elsewhere = _on_slices(model_id, found, boxes, categories, held, request.padding_px)
    else:
        detections, elsewhere = _through_slices(found, boxes, categories, held, request.padding_px)
    named_by = sorted(set(found["category_model_id"].drop_null().to_pylist()))
    truth, names = _with_categories(lake, named_by[0], held) if len(named_by) == 1 else (held.truth, ())
    return Contestant(model_id, truth, detections, LESION_TYPES, names, elsewhere)


def _on_slices(
    model_id: str, found: "pa.Table", boxes: "pa.Table", categories: NDArray[Any], held: LakeTruth, padding: float
) -> tuple[Detections, int]:
    """Every box on a key slice is a detection of its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = _texts(f"{model_id}/{series_id}/{first}" for series_id, first, _ in held.images)
    numbers = np.array(list(held.images.values()), np.int64)
    places = pc.index_in(
        pc.binary_join_element_wise(boxes["unit_id"], boxes["slice_index"].cast(pa.string()), "/"), keys
    )
    chosen = pc.is_valid(places)
    kept = boxes.filter(chosen)
    owners = pc.index_in(kept["detection_id"], found["detection_id"].combine_chunks())
    # A box without its detection has no category; the two are written together, the boxes first.
    owner_places = owners.fill_null(-1).to_numpy()
    return Detections(
        images=numbers[places.filter(chosen).to_numpy()],
        boxes=_padded(kept, padding),
        scores=kept["score"].to_numpy(),
        categories=np.where(owner_places >= 0, np.append(categories, UNKNOWN)[owner_places], UNKNOWN),
    ), boxes.num_rows - kept.num_rows


def _through_slices(
    found: "pa.Table", boxes: "pa.Table", categories: NDArray[Any], held: LakeTruth, padding: float
) -> tuple[Detections, int]:
    """Every detection counts once, in the sub-volume that its key slice is in, with its boxes on slices."""
    import pyarrow.compute as pc

    places = ImagePlaces(held.images)
    of_rows = zip(found["series_id"].to_pylist(), found["slice_index"].to_pylist(), strict=True)
    images = np.array([-1 if (at := places.image_of(*row)) is None else at for row in of_rows], np.int64)
    owners = pc.index_in(boxes["detection_id"], found["detection_id"].combine_chunks()).fill_null(-1).to_numpy()
    there = owners >= 0
    ends = [found[name].to_numpy() for name in ("first_slice_index", "last_slice_index")]
    # Those elsewhere are put on the first image and taken out again.
    everything = Detections(
        images=np.maximum(images, 0),
        boxes=_padded(found, padding),
        scores=found["score"].to_numpy(),
        categories=categories,
        slices=np.column_stack(ends),
        slice_boxes=SliceBoxes(
            owners=owners[there], slices=boxes["slice_index"].to_numpy()[there], boxes=_padded(boxes, padding)[there]
        ),
    )
    return everything.taken(images >= 0), int((images < 0).sum())


def _with_categories(lake: "Lake", categoriser: str, held: LakeTruth) -> tuple[Truth, tuple[str, ...]]:
    """The truth with the categories that a categoriser gave its lesions in its last round, and their names."""
    import pyarrow.compute as pc

    of_model = pc.field("model_id") == categoriser
    said = lake.read("labels", columns=["lesion_id", "round", "label"], where=of_model).sort_by("round").to_pylist()
    # Later rounds take the place of earlier ones.
    numbers = {row["lesion_id"]: int(row["label"]) for row in said if row["label"].isdigit()}
    rows = lake.read("categories", columns=["category", "name"], where=of_model).to_pylist()
    names = {row["category"]: row["name"] for row in rows}
    of_lesions = np.array([UNKNOWN if one is None else numbers.get(one, UNKNOWN) for one in held.lesion_ids], np.int64)
    last = max([*names, *numbers.values()], default=-1)
    listed = tuple(names.get(number) or f"category {number}" for number in range(last + 1))
    return dataclasses.replace(held.truth, categories=of_lesions), listed


def _padded(rows: "pa.Table", padding: float) -> NDArray[np.float64]:
    held = rows["box_xyxy_px"].combine_chunks()
    boxes: NDArray[np.float64] = held.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4).astype(np.float64)
    return grown(boxes, padding)


def _texts(values: Iterable[str]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(list(values), pa.string())
