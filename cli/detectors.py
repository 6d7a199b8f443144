"""A published detector as `detect` needs it: what its card says, and what makes it in a worker."""

from functools import partial
from typing import TYPE_CHECKING

from cli.options import Precision
from lesionary.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etl.detect_tasks import DetectorModel
    from lesionary.lake import Lake
    from lesionary.models import ModelCard

KIND = "detector"
_ONE_CLASS = "none"
_ON_CPU, _ON_GPU = 2, 8


def detector_model(
    lake: "Lake", card: "ModelCard", *, on_gpu: bool, precision: Precision | None, batch_size: int | None
) -> "DetectorModel":
    """The detector of a card.

    Args:
        lake: that holds it.
        card: its card.
        on_gpu: compute on a GPU.
        precision: of its products; what it was trained with unless given.
        batch_size: stacks at once; by the device unless given.

    Raises:
        ArtifactError: the card, or the weights, are damaged.
        UsageError: there is no GPU here.
    """
    from etl.detect_slices import DetectorInput
    from etl.detect_tasks import DetectorModel
    from lesionary.stack_schema import StackSettings
    from trainers.detector.inference import published_detector

    settings = card.settings
    try:
        stack = StackSettings(
            float(settings["pixel_mm"]), int(settings["slices"]), float(settings["step_mm"]),
            int(settings["max_side_px"]),
        )  # fmt: skip
        padding_px = float(settings["box_padding_px"])
        one_class = settings["categories"] == _ONE_CLASS
        named = tuple(map(str, settings["category_names"]))
    except (KeyError, TypeError, ValueError) as cause:
        raise ArtifactError(
            "its card does not say what it is to be shown", where=card.model_id, next_step="train it again"
        ) from cause
    chosen = precision.value if precision else str(settings.get("precision", Precision.FP32.value))
    make = partial(published_detector, lake.url, card.model_id, on_gpu=on_gpu, precision=chosen)
    # A damaged model is found out here, before any worker starts; one for a GPU may be meant for another machine.
    (partial(published_detector, lake.url, card.model_id) if on_gpu else make)()
    shown = DetectorInput(card.model_id, stack, padding_px, batch_size or (_ON_GPU if on_gpu else _ON_CPU))
    if one_class:
        return DetectorModel(shown, make)
    if all(name.isdecimal() for name in named):
        # Numbers of a categoriser's, which people may name at any time.
        return DetectorModel(shown, make, str(card.data.get("categories_of") or settings["categories"]))
    return DetectorModel(shown, make, card.model_id, named)


def category_names(lake: "Lake", model: "DetectorModel") -> dict[int, str]:
    """What the categories of a detector are called; numbers stand in for names nobody has given yet."""
    import pyarrow.compute as pc

    from lesionary.detection_tables import CATEGORIES

    if model.category_model_id is None:
        return {}
    names = dict(enumerate(model.own_categories))
    rows = lake.read(
        CATEGORIES.name, columns=["category", "name"], where=pc.field("model_id") == model.category_model_id
    )
    return names | {row["category"]: row["name"] for row in rows.to_pylist() if row["name"] is not None}


def category_text(names: "Mapping[int, str]", category: int | None, model: "DetectorModel") -> str | None:
    """A category's name, or what stands in for it; None for a detector of one class."""
    if category is None or model.category_model_id is None:
        return None
    return names.get(category, f"category {category}")
