"""Embedding: what the network costs in two number types, and what a run adds to the bare network.

    python benchmarks/bench_embed.py [--lesions 192] [--rounds 3] [--backbone vgg16] [--device cpu] [--ray]

* network: VGG-16 with the paper's heads on one batch, in fp32 with channels first and in bf16 with channels last. The
  promised ratio is that of a CPU with units for bf16 (AMX); what this one has is said;
* embed: a whole run over a lake whose patches are cached (finding what is missing, mapping patches, the network, the
  commit, thresholds) against the network alone on the same batches, made beforehand and held in memory. Reading the
  model counts for the run;
* on Ray (`--ray`): one actor, from the beginning of its first task to the end of its last, beside the same tasks in
  this process.

Ways take turns, after one round that is not counted; figures are medians.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from make_release import SLICES_PER_SERIES, write_release
from measure import Taken, TimedTask, in_turn, measured, median, ratio

from etl.embed import EmbeddingModel, embed
from etl.inference import infer_here
from etl.ingest import ingest
from etl.patches import make_patches
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.caches import open_cache
from lesionary.lake import Lake
from lesionary.models import ModelDraft, publish
from lesionary.schema import RELEASE_COLUMNS
from lesionary.settings import IngestSettings
from trainers.batches import PatchBatch
from trainers.checkpoint import weights_bytes
from trainers.triplet.inference import Embedder, EmbedderMaker, InferenceSettings, embedder_of, fastest_precision
from trainers.triplet.model import build_net

BF16_RATIO, EMBED_SHARE = 3.5, 0.85
_SERIES = 4
_BATCH = 16
_SIDE = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lesions", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ray", action="store_true")
    with measured(parser, quick={"lesions": 32, "rounds": 1, "backbone": "narrow"}) as arguments:
        network(arguments.backbone, arguments.device, arguments.rounds)
        with tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch:
            lake = small_lake(Path(scratch), arguments.lesions)
            whole(lake, arguments.backbone, InferenceSettings(device=arguments.device), arguments.rounds)
            if arguments.ray:
                on_ray(lake, arguments.backbone, arguments.rounds)


def network(backbone: str, device: str, rounds: int) -> None:
    """One batch through the network, in both number types."""
    torch.manual_seed(0)
    net = build_net({"backbone": backbone}).eval().to(device)
    last = build_net({"backbone": backbone}).eval().to(device).to(memory_format=torch.channels_last)
    images = torch.rand(_BATCH, 3, _SIDE, _SIDE, device=device) * 255
    turned = images.contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[50.0, 50.0, 78.0, 78.0]], device=device).expand(_BATCH, 4)
    extents = torch.tensor([[0.0, 0.0, 128.0, 128.0]], device=device).expand(_BATCH, 4)

    def fp32() -> None:
        settle(net(images, boxes, extents))

    def bf16() -> None:
        with torch.autocast(device, torch.bfloat16):
            settle(last(turned, boxes, extents))

    with torch.inference_mode():
        taken = in_turn({"fp32": fp32, "bf16": bf16}, rounds * 3)
    fastest = fastest_precision(torch.device(device))
    print(f"{backbone}, {_BATCH} patches of {_SIDE} px, {torch.get_num_threads()} threads, {device}")
    for name, one in taken.items():
        print(f"  {name}  {one.seconds * 1e3:8.0f} ms  {_BATCH / one.seconds:8.1f} patches/s")
    speed = taken["fp32"].seconds / taken["bf16"].seconds
    # Without AMX nothing is promised; embed takes fp32 there.
    promised = BF16_RATIO if fastest == "bf16" else None
    ratio(f"{device}: bf16 and channels last over fp32", speed, at_least=promised)


def settle(value: torch.Tensor) -> None:
    """Wait for a GPU."""
    value.sum().item()


def small_lake(folder: Path, lesions: int) -> Lake:
    """A lake of some series with many marks, and their patches."""
    source = write_release(folder / "release", _SERIES * SLICES_PER_SERIES)
    lines = [",".join(RELEASE_COLUMNS), *(annotation(number, lesions) for number in range(lesions))]
    (source / "DL_info.csv").write_text("\n".join(lines) + "\n")
    lake = Lake.create(str(folder / "lake"))
    settings = IngestSettings(namespace="dl")
    ingest(lake, plan_sources([str(source)], settings), settings, choose_runner=lambda _: (run_here, 1))
    make_patches(lake)
    return lake


def annotation(number: int, lesions: int) -> str:
    series, at = number % _SERIES + 1, number // _SERIES
    x, y, key = 150 + 17 * at % 200, 150 + 29 * at % 200, 3 + at % (SLICES_PER_SERIES - 6)
    points = f'"{x}, {y}, {x + 20}, {y}, {x + 10}, {y - 5}, {x + 10}, {y + 5}"'
    return (
        f'{series:06d}_01_01_{key:03d}.png,{series},1,1,{key},{points},"{x - 5}, {y - 10}, {x + 25}, {y + 10}",'
        f'"20, 10","0.5, 0.5, 0.5",{1 + number % 8},0,"1, {SLICES_PER_SERIES}","0.8, 0.8, 2","512, 512","-175, 275",'
        f"F,60,{1 + 2 * number // lesions}"
    )


def new_model(lake: Lake, backbone: str) -> EmbeddingModel:
    """A model that has embedded nothing yet."""
    torch.manual_seed(0)
    net = build_net({"backbone": backbone})
    settings = {"backbone": backbone, "scale_mm": 1.0}
    draft = ModelDraft(kind="triplet", preset="paper", settings=settings, lake={}, data={}, metrics={}, seed=0)
    card = publish(lake, "bench", draft, weights_bytes(net.state_dict()))
    version = int(card.model_id.rpartition("-")[2])
    return EmbeddingModel(
        card.model_id,
        "bench",
        version,
        EmbedderMaker(lake.url, card.model_id, InferenceSettings(threads=torch.get_num_threads())),
    )


def whole(lake: Lake, backbone: str, settings: InferenceSettings, rounds: int) -> None:
    """A run in this process beside the network alone."""
    models = [new_model(lake, backbone) for _ in range(rounds + 1)]
    waiting = iter([(one, EmbedderMaker(lake.url, one.model_id, settings)) for one in models])
    embedder, batches = ready(lake, models[0], settings)

    def run() -> None:
        model, maker = next(waiting)
        embed(lake, EmbeddingModel(model.model_id, model.set_name, model.set_version, maker))

    taken = in_turn({"bare": lambda: bare(embedder, batches), "embed": run}, rounds)
    tell("embed, in this process", taken["bare"], taken["embed"], sum(len(one.rows) for one in batches))


def ready(lake: Lake, model: EmbeddingModel, settings: InferenceSettings) -> tuple[Embedder, list[PatchBatch]]:
    """The network, and all patches as the batches that a run shows it."""
    from etl.patches import find_patches
    from lesionary.models import find_model

    cache = find_patches(lake)
    if cache is None:
        raise SystemExit("the patches are not cached")
    embedder = embedder_of(lake, find_model(lake, model.model_id), settings)
    return embedder, list(embedder.batches(open_cache(cache.url)))


def bare(embedder: Embedder, batches: list[PatchBatch]) -> None:
    for batch in batches:
        answer = embedder.ask(batch)
    settle(answer)


def on_ray(lake: Lake, backbone: str, rounds: int) -> None:
    """The same through an actor, from its first task's beginning to its last one's end."""
    from cli.cluster import cluster_cores, ray_session
    from etl.inference_job import ActorPool

    def timed(infer: Any, into: list[float]) -> Callable[[], object]:
        def told(tasks: Any, make_model: Any) -> Iterator[Any]:
            times = []
            for started, ended, result in infer([TimedTask(task) for task in tasks], make_model):
                times.append((started, ended))
                yield result
            into.append(max(end for _, end in times) - min(start for start, _ in times))

        return lambda: embed(lake, new_model(lake, backbone), choose_inference=lambda _: (told, 1))

    with ray_session():
        here: list[float] = []
        there: list[float] = []
        pool = ActorPool(actors=1, cores=max(1, cluster_cores()))
        in_turn({"here": timed(infer_here, here), "ray": timed(pool, there)}, rounds)
    share = median(here[1:]) / median(there[1:])
    ratio("one actor on Ray, of tasks in this process", share, at_least=EMBED_SHARE)


def tell(title: str, alone: Taken, run: Taken, patches: int) -> None:
    share = alone.seconds / run.seconds
    print(f"{patches} patches: network alone {alone.seconds:.2f} s ({patches / alone.seconds:.1f}/s), ", end="")
    print(f"run {run.seconds:.2f} s; by processor time {alone.processor:.2f} s and {run.processor:.2f} s, ", end="")
    print(f"a share of {alone.processor / run.processor:.3f}")
    ratio(f"{title}, share of the bare network's speed", share, at_least=EMBED_SHARE)
    ratio(f"{title}, share of it by processor time", alone.processor / run.processor)


if __name__ == "__main__":
    main()
