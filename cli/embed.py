"""`lesionary embed`: a model's vectors of the lake's lesions, as a feature set."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.console import counted, human_seconds, live_line, note
from cli.detectors import KIND as DETECTOR
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, Precision, RayAddressOption
from cli.render import write_json
from cli.runners import Runners
from lesionary.errors import UsageError
from lesionary.identifiers import holds_detections

if TYPE_CHECKING:
    from etl.embed import EmbedSummary
    from etl.inference import InferenceRunner
    from lesionary.lake import Lake
    from lesionary.models import ModelCard
    from trainers.triplet.inference import InferenceSettings

# The store's own names for what follows from the lesions.
_BUILT_IN_NAMES = frozenset({"location", "size", "location+size"})


Show = Callable[[str], None]


class Features(StrEnum):
    """Vectors that need no training."""

    MULTI_SCALE = "multi-scale"


PrecisionOption = Annotated[
    Precision | None,
    typer.Option("--precision", help="Of the network's convolutions. [bf16 on GPUs and CPUs with AMX, else fp32]"),
]


def embed(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME|ID", help="Which model; a name is its newest. [the newest triplet model]"
        ),
    ] = None,
    features: Annotated[
        Features | None,
        typer.Option("--features", help="Instead of a trained model: features of a backbone that need no training."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="For --features: vgg16, narrow, convnext_tiny. [vgg16]")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="imagenet|position|none|FILE|MODEL",
            help="For --features: the backbone's weights. [imagenet]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="For --features --weights none: of the weights.")] = 0,
    detections: Annotated[
        str | None,
        typer.Option(
            "--detections", metavar="DETECTOR", help="Instead of marked lesions: what this detector of the lake found."
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, max=1, help="For --detections: less sure ones get no vector.")
    ] = 0.0,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Patches of the smallest size at once. [32 on a CPU, 256 on a GPU]"),
    ] = None,
    precision: PrecisionOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Models at work at once; more than 1 run on Ray. [1]")
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option("--gpus", min=0, help="GPUs of each worker, such as 0.5. [1 where there are enough, else 0]"),
    ] = None,
    ray_address: RayAddressOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Give every lesion a vector by a model of the lake; a second run does only what is new or was missing.

    The feature set carries the model's name and number: vectors by triplet-2 are the set triplet@2. Those of detections
    are the set triplet-detections@2, which `lesionary similar` searches with --among detections.
    """
    from lesionary.lake import Lake
    from lesionary.models import find_model

    if features is None and (backbone, weights, seed) != (None, None, 0):
        raise UsageError(
            "these choose features, not a trained model",
            where="--backbone, --weights, --seed",
            next_step="add --features multi-scale",
        )
    if features is not None and model is not None:
        raise UsageError("vectors come from a model or from features", where="--model, --features")
    if min_score and detections is None:
        raise UsageError("marked lesions have no scores", where="--min-score", next_step="add --detections DETECTOR")
    opened = Lake.open(lake)
    seen = _Seen(find_model(opened, detections, DETECTOR).model_id, min_score) if detections is not None else None
    card = _features(opened, backbone, weights, seed) if features else _trained(opened, model)
    with ExitStack() as session, live_line() as show:
        places = _Places(session, workers, gpus, ray_address)
        summary = _run(opened, card, places, places.settings(batch_size, precision), seen, show)
    if as_json:
        write_json(asdict(summary))
        return
    _report(summary, "lesion" if seen is None else "detection")


def _trained(lake: "Lake", model: str | None) -> "ModelCard":
    from lesionary.models import find_model
    from trainers.triplet.inference import TRIPLET, net_settings

    # A name may be that of any kind which gives vectors; without one the trained kind is meant.
    card = find_model(lake, model, TRIPLET if model is None else None)
    net_settings(card)
    return card


def _features(lake: "Lake", backbone: str | None, weights: str | None, seed: int) -> "ModelCard":
    from cli.training_inputs import start_weights
    from lesionary.models import find_model
    from lesionary.patch_schema import PIXEL_MM
    from trainers.triplet.features import FeatureSource, features_model
    from trainers.triplet.inference import scale_of

    weights = weights or "imagenet"
    named, content, _ = start_weights(lake, weights)
    scale_mm = PIXEL_MM
    if content and not Path(weights).is_file():
        # As the model was trained to see.
        card = find_model(
            lake, None if weights == "position" else weights, "position" if weights == "position" else None
        )
        scale_mm, backbone = scale_of(card), backbone or str(card.settings.get("backbone", "vgg16"))
    source = FeatureSource(
        backbone=backbone or "vgg16",
        scale_mm=scale_mm,
        weights=content["weights"] if content else named["weights"],
        seed=seed,
    )
    return features_model(lake, source)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which detections get vectors."""

    detector_id: str
    min_score: float


def _run(
    lake: "Lake",
    card: "ModelCard",
    places: "_Places",
    settings: "InferenceSettings",
    seen: _Seen | None,
    show: "Show",
) -> "EmbedSummary":
    from etl.embed import EmbeddingModel
    from etl.embed import embed as embed_lake
    from etl.embed_detections import embed_detections
    from trainers.triplet.inference import EmbedderMaker

    name, _, number = card.model_id.rpartition("-")
    if name in _BUILT_IN_NAMES:
        raise UsageError(
            "a built-in feature set has this model's name", where=card.model_id, next_step="train under another --name"
        )
    if holds_detections(name):
        raise UsageError(
            "its feature set would have the name of one with vectors of detections",
            where=card.model_id,
            next_step="train under another --name",
        )
    maker = EmbedderMaker(lake.url, card.model_id, settings)
    started = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        left = (time.monotonic() - started) * (total - done) / max(done, 1)
        show(f"{what}: {done} of {total} lesions, {human_seconds(left)} left")

    model = EmbeddingModel(card.model_id, name, int(number), maker)
    if seen is not None:
        return embed_detections(
            lake, model, seen.detector_id, seen.min_score, choose_inference=places.choose_inference, progress=tell
        )
    return embed_lake(
        lake,
        model,
        choose_inference=places.choose_inference,
        choose_runner=places.runners.choose,
        progress=tell,
    )


class _Places:
    """Where the model runs: in this process, or in actors on Ray."""

    def __init__(self, session: ExitStack, workers: int | None, gpus: float | None, ray_address: str | None) -> None:
        self._workers, self._gpus, self._on_ray = workers or 1, gpus, (workers or 1) > 1 or ray_address is not None
        # A model takes all the cores it can get; with one worker, patches are cut one after the other as well.
        self.runners = Runners(session, int(workers == 1), ray_address, at_least=self._workers)
        self._cores = 0

    def settings(self, batch_size: int | None, precision: Precision | None) -> "InferenceSettings":
        """How each of the models runs."""
        import torch

        from trainers.triplet.inference import InferenceSettings

        chosen: Literal["fp32", "bf16"] | None = None if precision is None else precision.value
        if self._on_ray:
            from cli.cluster import cluster_cores, cluster_gpus

            self.runners.connect()
            if self._gpus is None:
                self._gpus = float(cluster_gpus() >= self._workers)
            self._cores = max(1, cluster_cores() // self._workers)
            chosen = chosen or _one_precision(on_gpu=self._gpus > 0)
        elif self._gpus is None:
            self._gpus = float(torch.cuda.is_available())
        return InferenceSettings(
            device="cuda" if self._gpus else "cpu",
            precision=chosen,
            batch_size=batch_size,
            threads=self._cores,
        )

    def choose_inference(self, _count: int) -> "tuple[InferenceRunner, int]":
        """What runs the model, and how many at once."""
        if not self._on_ray:
            from etl.inference import infer_here

            return infer_here, 1
        from etl.inference_job import ActorPool

        # A cluster that was named may yet grow.
        growing = not self.runners.on_this_machine
        return ActorPool(self._workers, self._cores, self._gpus or 0.0, growing=growing), self._workers


def _one_precision(*, on_gpu: bool) -> Literal["fp32", "bf16"]:
    """What all workers compute with: each by itself would take what its own hardware is fastest with."""
    import torch

    from trainers.triplet.inference import fastest_precision

    if on_gpu and not torch.cuda.is_available():
        # The driver has none to ask; GPUs that could not are older than any that Ray clusters are made of.
        return "bf16"
    return fastest_precision(torch.device("cuda" if on_gpu else "cpu"))


def _report(summary: "EmbedSummary", noun: str) -> None:
    left_out = ", ".join(f"{reason} {count}" for reason, count in summary.left_out.items())
    print(
        f"{summary.feature_set_id}: {counted(summary.lesions, noun)} = {summary.embedded} embedded + "
        f"{summary.kept} that had a vector + {sum(summary.left_out.values())} without a "
        + ("patch" if noun == "lesion" else "vector")
        + (f" ({left_out})" if left_out else "")
    )
    if not summary.embedded:
        note(f"nothing to do: every {noun} that can have a vector has one")
        return
    speed = summary.embedded / summary.seconds if summary.seconds else 0.0
    note(f"{summary.embedded} vectors in {human_seconds(summary.seconds)} ({speed:.0f} a second)")
    if noun != "lesion":
        note("`lesionary sync`, then for example `lesionary similar DETECTION`, or `similar LESION --among detections`")
        return
    if summary.t1 is None or summary.t2 is None:
        note("too few marks to choose thresholds for `lesionary match`: it will ask for --t1 and --t2")
    else:
        note(f"`lesionary match` will take t1 {summary.t1:.4g} and t2 {summary.t2:.4g}")
    note(f"`lesionary sync`, then for example `lesionary similar LESION --feature-set {summary.feature_set_id}`")
