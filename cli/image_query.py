"""A lesion on an image outside the lake as a query: which feature set, which model, and the vector."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import note
from cli.options import numbers_of
from lesionary.errors import StoreError, UsageError

if TYPE_CHECKING:
    import duckdb

    from cli.figures.lesion_images import LesionImage
    from etl.single_image import ImageWish
    from lesionary.lake import Lake
    from lesionary.models import ModelCard

# No set can have this name.
NEWEST_OF_A_MODEL = ""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a person typed."""

    image: Path | None
    box: str | None
    frame: int | None
    spacing_mm: str | None

    def wish(self) -> "ImageWish | None":
        """The lesion they name; None without an image.

        Raises:
            UsageError: an option is missing, or is no number.
        """
        if self.image is None:
            stray = {"--box": self.box, "--slice": self.frame, "--spacing-mm": self.spacing_mm}
            for option, value in stray.items():
                if value is not None:
                    raise UsageError("this belongs to an image", where=option, next_step="add --image FILE")
            return None
        if self.box is None:
            raise UsageError("where on the image the lesion lies is needed", where="--image", next_step="add --box")
        from etl.single_image import ImageWish

        spacing = None if self.spacing_mm is None else tuple(numbers_of(self.spacing_mm, "--spacing-mm"))
        return ImageWish(self.image, tuple(numbers_of(self.box, "--box")), self.frame, spacing)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model says of a lesion on an image."""

    feature_set_id: str
    """The set that its vectors are in."""
    vector: Sequence[float]
    image: "LesionImage"


def look_at(lake_url: str, connection: "duckdb.DuckDBPyConnection", feature_set: str, wish: "ImageWish") -> Seen:
    """Read the image, and ask the model of a feature set.

    Args:
        lake_url: of the lake that the models lie in.
        connection: on its store.
        feature_set: to search in; `NEWEST_OF_A_MODEL` = the newest one whose model the lake has.
        wish: the lesion.

    Raises:
        SourceError: the file is no CT image, or damaged.
        UsageError: the set is not a model's, or an option makes no sense.
        ArtifactError: the model is damaged.
        StoreError: no set is a model's.
    """
    import numpy as np

    from cli.figures.lesion_images import DEFAULT_WINDOW_HU, LesionImage
    from etl.single_image import read_lesion
    from lesionary.lake import Lake

    lake = Lake.open(lake_url)
    set_id, card = _chosen(lake, connection, feature_set)
    # Before PyTorch is loaded, which takes longer.
    lesion = read_lesion(wish)
    from trainers.triplet.inference import InferenceSettings, embedder_of

    vector = embedder_of(lake, card, InferenceSettings())(lesion.patch)[0]
    if feature_set == NEWEST_OF_A_MODEL:
        note(f"searched in {set_id}, the newest feature set of a model")
    if lesion.slices == 1:
        note("no neighbouring slices were found: the slice stands in for them")
    shown = LesionImage(lesion.hu, np.empty((0, 2)), lesion.box_px, lesion.spacing_xy_mm, DEFAULT_WINDOW_HU)
    return Seen(set_id, vector.tolist(), shown)


def _chosen(lake: "Lake", connection: "duckdb.DuckDBPyConnection", wanted: str) -> "tuple[str, ModelCard]":
    from lesionary.models import find_model
    from store.features import find_set, list_sets

    if wanted != NEWEST_OF_A_MODEL:
        found = find_set(connection, wanted)
        if found.built_in:
            raise UsageError(
                f"{found.feature_set_id} follows from a lesion's measurements, not from its image",
                where="--feature-set",
                next_step="name the set of a trained model; `lesionary features list` has them",
            )
        return found.feature_set_id, find_model(lake, found.model_id)
    for found in sorted(list_sets(connection), key=lambda one: one.created_at, reverse=True):
        if not found.built_in:
            with contextlib.suppress(UsageError):
                return found.feature_set_id, find_model(lake, found.model_id)
    raise StoreError(
        "the store has no feature set of a model of the lake",
        where="--image",
        next_step="run `lesionary train triplet`, `lesionary embed` and `lesionary sync`",
    )
