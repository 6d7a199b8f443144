"""The lesions that show best what a category is, and their patches, straight out of the lake."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.figures.patches import Patch
    from lesionary.lake import Lake


def typical_lesions(
    lake: "Lake", model_id: str, categories: Sequence[int], most: int
) -> dict[int, list[tuple[str, float]]]:
    """Lesions and scores of each category, surest first, at most one a patient: follow-ups look too much alike."""
    from lesionary.categories import last_labels

    rows = last_labels(lake, model_id).sort_by([("score", "descending"), ("lesion_id", "ascending")])
    lesions = lake.read("lesions", columns=["lesion_id", "patient_id"])
    patients = dict(zip(lesions["lesion_id"].to_pylist(), lesions["patient_id"].to_pylist(), strict=True))
    found: dict[int, list[tuple[str, float]]] = {number: [] for number in categories}
    seen: set[tuple[int, str]] = set()
    for row in rows.to_pylist():
        number, patient = row["category"], patients.get(row["lesion_id"])
        if patient is None or len(found.get(number, range(most))) >= most or (number, patient) in seen:
            continue
        seen.add((number, patient))
        found[number].append((row["lesion_id"], row["score"]))
    return found


def lesion_patches(lake: "Lake", lesion_ids: Sequence[str]) -> "dict[str, Patch]":
    """Patches of lesions, by their names; those that the lake holds no image of are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from cli.figures.gallery import lesion_patch
    from cli.figures.lesion_images import read_image
    from lesionary.slices import SliceReader

    wanted = pa.array(list(lesion_ids), pa.string())
    lesions = lake.read("lesions", where=pc.field("lesion_id").isin(wanted)).to_pylist()
    of_series = pc.field("series_id").isin(pa.array(sorted({row["series_id"] for row in lesions}), pa.string()))
    series = {row["series_id"]: row for row in lake.read("series", where=of_series).to_pylist()}
    slices = lake.read("slices", columns=["series_id", "slice_index"], where=of_series)
    there = set(zip(slices["series_id"].to_pylist(), slices["slice_index"].to_pylist(), strict=True))
    found = {}
    with SliceReader(lake) as reader:
        for row in lesions:
            place = (row["series_id"], row["slice_index"])
            image = read_image(reader, series.get(row["series_id"], {}) | row | {"image_available": place in there})
            if image is not None:
                found[row["lesion_id"]] = lesion_patch(image)
    return found
