"""`lesionary train`: the networks, on the lake's images, in this process or on Ray workers."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import note
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, Precision, RayAddressOption
from cli.render import write_json

if TYPE_CHECKING:
    from lesionary.models import ModelCard


class Kind(StrEnum):
    """What can be trained."""

    SSBR = "ssbr"
    POSITION = "position"
    TRIPLET = "triplet"
    CATEGORIES = "categories"
    DETECTOR = "detector"


class Preset(StrEnum):
    """How large a training is."""

    SMOKE = "smoke"
    SMALL = "small"
    SMALL_PAPER = "small-paper"
    PAPER = "paper"
    MODERN = "modern"


def train(
    kind: Annotated[
        Kind,
        typer.Argument(
            help="ssbr: a slice's height in the body, learnt from the order of slices. position: a start for others "
            "that needs no download. triplet: lesions as vectors, near where type, place and size are alike. "
            "categories: lesions sorted without labels, for a person to name and the detector to learn. "
            "detector: where lesions are on slices.",
        ),
    ],
    preset: Annotated[
        Preset | None,
        typer.Option(
            "--preset",
            help="smoke: shows that it runs; small: for a CPU; paper: as published; of the detector also small-paper "
            "and modern. [small]",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="imagenet|position|none|FILE|MODEL",
            help="Where the backbone starts: torchvision's weights, the newest position model, a file, a model.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of training. [the preset's]")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of every random choice. [0]")] = None,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="bf16 = mixed precision. [the preset's]")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the trainer; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The model's; it gets a number. [its kind]")] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Name of the run, for --resume. [made up and printed]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped, from its newest checkpoint.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes that share each batch; more than 1 run on Ray. [1]"),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option("--gpus", min=0, help="GPUs of each worker, such as 0.5. [1 where there are enough, else 0]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=0, help="PyTorch's, in each worker. [its share of the cores]")
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", min=0, help="How often lost workers are replaced. [2]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", envvar="LESIONARY_CONFIG", help="Settings file. [lesionary.toml]")
    ] = None,
    ray_address: RayAddressOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Train a network on the lake's images and keep it in the lake, with a card that says what it was made of.

    The number of workers changes neither the loss curve nor the learning rate: they share each batch.
    """
    from cli.training import Wish
    from cli.training import train as train_wished
    from cli.training_inputs import TRAINERS

    wish = Wish(
        preset=preset,
        changes={"steps": steps, "seed": seed, "precision": precision},
        pairs=settings or (),
        weights=weights,
        name=name,
        run=run,
        resume=resume,
        workers=workers,
        gpus=gpus,
        threads=threads,
        max_failures=max_failures,
        ray_address=ray_address,
        config=config,
    )
    card = train_wished(TRAINERS[kind], lake, wish)
    if as_json:
        write_json(asdict(card))
        return
    print(summary_line(card))
    for remark in card.notes:
        note(remark)


def summary_line(card: "ModelCard") -> str:
    """The model and its plain metrics in one line."""
    plain = {name: value for name, value in card.metrics.items() if isinstance(value, int | float)}
    metrics = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in plain.items())
    return f"{card.model_id}: {card.preset} {card.kind} model, seed {card.seed}" + (f"; {metrics}" if metrics else "")
