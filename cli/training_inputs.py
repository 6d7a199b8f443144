"""What each trainer reads: its caches, made through etl where the lake has none yet, and weights to start from."""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lesionary.errors import UsageError
from lesionary.models import train_word

if TYPE_CHECKING:
    from etl.running import RunnerChoice
    from lesionary.caches import Cache
    from lesionary.lake import Lake

Show = Callable[[str], None]


class TrainerSettings(Protocol):
    """Everything that decides a training, apart from its data: a dataclass of `trainers/*/presets.py`."""

    @property
    def seed(self) -> int:
        """Of every random choice."""

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""


class Presets(Protocol):
    """A module `trainers/*/presets.py`."""

    @property
    def PRESETS(self) -> Mapping[str, TrainerSettings]:  # noqa: N802 (a module's constant)
        """By name."""

    def settings_for(self, preset: str, changes: Mapping[str, Any] | None = None) -> TrainerSettings:
        """A preset with some settings changed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a training reads."""

    job: Mapping[str, Any]
    """URLs of its caches, by their names in the job."""
    lake: Mapping[str, int]
    """Versions of the lake's tables that they were made of."""
    data: Mapping[str, Any]
    """What they count."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Inputs that are no caches, by their names in the job."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What can be trained."""

    kind: str
    prepare: "Callable[[Lake, TrainerSettings, RunnerChoice, Show], Prepared]"
    """Makes the caches."""
    package: str = ""
    """Holds the modules `loop` and `presets`; trainers.KIND unless given."""

    @property
    def entry(self) -> str:
        """What workers call."""
        return f"{self.package or f'trainers.{self.kind}'}.loop:train"

    @property
    def presets(self) -> Presets:
        """The module of its settings."""
        return cast("Presets", importlib.import_module(f"{self.package or f'trainers.{self.kind}'}.presets"))

    @property
    def settings(self) -> type[TrainerSettings]:
        """The class of its settings."""
        return type(next(iter(self.presets.PRESETS.values())))


def start_weights(lake: "Lake", wanted: str | None) -> tuple[dict[str, str], dict[str, bytes], str]:
    """What the job says of the weights to start from, their content where they are a file or a model's, their name.

    Raises:
        UsageError: there are none such.
    """
    from lesionary.models import find_model, read_weights

    if wanted is None:
        return {}, {}, "none"
    if wanted in {"none", "imagenet"}:
        return {"weights": wanted}, {}, wanted
    if Path(wanted).is_file():
        return {}, {"weights": Path(wanted).read_bytes()}, Path(wanted).name
    if "/" in wanted or Path(wanted).suffix:
        raise UsageError("there is no such file", where=f"--weights {wanted}")
    card = find_model(lake, None if wanted == "position" else wanted, "position" if wanted == "position" else None)
    return {}, {"weights": read_weights(lake, card)}, card.model_id


def _volumes(lake: "Lake", settings: TrainerSettings, choose_runner: "RunnerChoice", show: Show) -> Prepared:
    from etl.volumes import VolumeSettings, make_volumes

    cache = make_volumes(
        lake,
        VolumeSettings(side=max(VolumeSettings().side, getattr(settings, "input_px", 0))),
        choose_runner=choose_runner,
        progress=lambda done, total: show(f"volumes: {done} of {total} slices"),
    )
    return _of_cache("volumes", cache)


def _patches(lake: "Lake", _settings: TrainerSettings, choose_runner: "RunnerChoice", show: Show) -> Prepared:
    from etl.patches import make_patches

    cache = make_patches(
        lake,
        located=located_heights(lake),
        choose_runner=choose_runner,
        progress=lambda done, total: show(f"patches: {done} of {total} lesions"),
    )
    return _of_cache("patches", cache)


def _stacks(lake: "Lake", settings: TrainerSettings, choose_runner: "RunnerChoice", show: Show) -> Prepared:
    from etl.stacks import TrainingStacks, make_stacks
    from trainers.detector.presets import DetectorSettings

    detector = cast("DetectorSettings", settings)
    cache = make_stacks(
        lake,
        TrainingStacks(detector.stack(), detector.empty_share),
        choose_runner=choose_runner,
        progress=lambda done, total: show(f"stacks: {done} of {total} marked slices"),
    )
    prepared = _of_cache("stacks", cache)
    if detector.categories in {"none", "types"}:
        return prepared
    model_id, content = _categories(lake, detector.categories)
    return replace(prepared, data={**prepared.data, "categories_of": model_id}, files={"categories": content})


def _categories(lake: "Lake", wanted: str) -> tuple[str, bytes]:
    """The model that has labelled the lake's lesions, and its newest labels as the detector's loop reads them.

    Raises:
        UsageError: the lake has no such model, or nothing of what it says.
    """
    import pyarrow.compute as pc

    from lesionary.anatomy import LESION_TYPES
    from lesionary.models import find_model

    card = find_model(lake, wanted)
    rows = lake.read("labels", columns=["lesion_id", "round", "label"], where=pc.field("model_id") == card.model_id)
    if not rows.num_rows:
        raise UsageError(
            "it has labelled no lesion of this lake",
            where=card.model_id,
            next_step="name a categoriser or a triplet model; `lesionary models list` has them",
        )
    rows = rows.filter(pc.equal(rows["round"], pc.max(rows["round"])))
    labels = rows["label"].to_pylist()
    # A categoriser's labels are the numbers of its categories, a triplet model's are types.
    numbered = all(label.isdecimal() for label in labels)
    names = [str(number) for number in range(max(map(int, labels)) + 1)] if numbered else list(LESION_TYPES)
    numbers = {lesion: names.index(label) for lesion, label in zip(rows["lesion_id"].to_pylist(), labels, strict=True)}
    return card.model_id, json.dumps({"names": names, "lesions": numbers}, sort_keys=True).encode()


def _of_cache(name: str, cache: "Cache") -> Prepared:
    return Prepared(
        {name: cache.url}, cast("Mapping[str, int]", cache.record["versions"]), {name: cache.record["counts"]}
    )


def located_heights(lake: "Lake") -> dict[str, float] | None:
    """Lesion to the height that the newest body-part regressor gives it; None where none has located the lake."""
    from lesionary.schema import TABLES

    if "location_models" not in TABLES or not lake.has_table("location_models"):
        return None
    import pyarrow.compute as pc

    models = lake.read("location_models", columns=["model_id", "model_created_at"]).sort_by("model_created_at")
    if not models.num_rows:
        return None
    newest = models["model_id"][-1].as_py()
    rows = lake.read("locations", columns=["lesion_id", "z"], where=pc.field("model_id") == newest)
    pairs = zip(rows["lesion_id"].to_pylist(), rows["z"].to_pylist(), strict=True)
    return {lesion: float(z) for lesion, z in pairs if z is not None}


TRAINERS: Mapping[str, Trainer] = {
    train_word(one.kind): one
    for one in (
        Trainer("ssbr", _volumes),
        Trainer("position", _patches),
        Trainer("triplet", _patches),
        Trainer("categoriser", _patches),
        Trainer("detector", _stacks),
    )
}
"""By what `lesionary train` calls them."""
