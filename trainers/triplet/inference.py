"""Patches to vectors with a model of the lake: a triplet network's, or the features of a backbone alone.

An `EmbedderMaker` is a plan of some hundred bytes that travels to wherever vectors are made; the `Embedder` that it
makes there holds the network. Both kinds of model rebuild from their card's settings and their weights:

    triplet       unit vectors of the trained network
    multi-scale   parameter-free: each stage of a backbone pooled over its region, brought to length one, joined

May import: lesionary, torch, trainers.backbones, trainers.batches, trainers.checkpoint, trainers.triplet.model.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.errors import ArtifactError, UsageError
from lesionary.lake import Lake
from lesionary.models import ModelCard, find_model, read_weights
from lesionary.patch_schema import BUCKETS, PIXEL_MM
from trainers.batches import PatchBatch, PatchSource, inference_batches
from trainers.checkpoint import fill_module, weights_from_bytes
from trainers.triplet.model import MultiScaleNet, NetSettings, build_net

TRIPLET, MULTI_SCALE = "triplet", "multi-scale"
EMBEDDING_KINDS: tuple[str, ...] = (TRIPLET, MULTI_SCALE)
"""Kinds of models that give lesions vectors."""

# Of the smallest patches. More would not be faster, and needs memory.
_BATCH_ON_CPU, _BATCH_ON_GPU = 32, 256
# Makers of the next batch's images beside a GPU, which outruns one of them.
_THREADS_BESIDE_GPU = 4

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    """How vectors are made; which ones is the model's business, but for the last digits."""

    device: str = "cpu"
    """As torch names it: cpu, cuda, cuda:1."""
    precision: Precision | None = None
    """Of the backbone; what the device is fastest with unless given."""
    batch_size: int | None = None
    """Patches of the smallest side at once, fewer of larger ones; as suits the device unless given."""
    threads: int = 0
    """Of torch; 0 leaves them as they are."""

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        if self.batch_size is not None and not 1 <= self.batch_size <= 65_536:
            raise UsageError("a batch holds 1 to 65,536 patches", where="--batch-size")
        if self.precision not in {None, "fp32", "bf16"}:
            raise UsageError(f"there is no precision {self.precision!r}", where="--precision")


class Embedder:
    """A network that is ready to be asked for vectors."""

    def __init__(self, net: MultiScaleNet, kind: str, scale_mm: float, settings: InferenceSettings) -> None:
        """Bring the network to its device.

        Args:
            net: with its weights.
            kind: triplet or multi-scale.
            scale_mm: pixel size that the network was trained at.
            settings: how to run it.

        Raises:
            UsageError: there is no such device.
        """
        self._device = usable_device(settings.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._precision = settings.precision or fastest_precision(self._device)
        on_gpu = self._device.type == "cuda"
        self._batch_size = settings.batch_size or (_BATCH_ON_GPU if on_gpu else _BATCH_ON_CPU)
        self._threads = _THREADS_BESIDE_GPU if on_gpu else 1
        self._net = net.eval().to(self._device).to(memory_format=torch.channels_last)
        self._ask = net.forward if kind == TRIPLET else net.features
        self._scale_mm = scale_mm
        self.dimension = net.settings.dimension if kind == TRIPLET else net.feature_count

    def __call__(self, patches: pa.Table) -> NDArray[np.float32]:
        """The vectors of some patches, in their order.

        Raises:
            ArtifactError: the table is not one of patches, or the network gives values that are not finite.
        """
        vectors = torch.empty((patches.num_rows, self.dimension))
        found = [(batch.rows, self.ask(batch)) for batch in self._ahead(patches)]
        # On a GPU nothing has waited for a result until here.
        for rows, answer in found:
            vectors[torch.from_numpy(rows)] = answer.cpu()
        if not bool(torch.isfinite(vectors).all()):
            raise ArtifactError("the model gives vectors that are not finite", next_step="train it again")
        made: NDArray[np.float32] = vectors.numpy()
        return made

    def ask(self, batch: PatchBatch) -> Tensor:
        """The vectors of one batch, float32, on the device."""
        device = self._device
        images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
        boxes, extents = (part.to(device, non_blocking=True) for part in (batch.boxes, batch.extents))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            return self._ask(images, boxes, extents).float()

    def batches(self, patches: pa.Table) -> Iterator[PatchBatch]:
        """Patches as the network is asked about them: by side, about the same number of pixels each."""
        source = PatchSource(patches, self._threads)
        for side in np.unique(source.sides).tolist():
            size = max(1, self._batch_size * BUCKETS[0] ** 2 // max(side, BUCKETS[0]) ** 2)
            rows = np.flatnonzero(source.sides == side)
            for batch in inference_batches(source.subset(rows), size, self._scale_mm):
                yield PatchBatch(rows[batch.rows], batch.images, batch.boxes, batch.extents)

    def _ahead(self, patches: pa.Table) -> Iterator[PatchBatch]:
        """Beside a GPU, the next batch is made while the network is busy with this one."""
        batches = self.batches(patches)
        if self._device.type != "cuda":
            yield from batches
            return
        with ThreadPoolExecutor(1, "next-batch") as pool:
            coming = pool.submit(_pinned, batches)
            while (batch := coming.result()) is not None:
                coming = pool.submit(_pinned, batches)
                yield batch


def _pinned(batches: Iterator[PatchBatch]) -> PatchBatch | None:
    """The next batch in memory that can be copied to a GPU beside its work; None after the last."""
    batch = next(batches, None)
    if batch is None:
        return None
    return PatchBatch(batch.rows, batch.images.pin_memory(), batch.boxes.pin_memory(), batch.extents.pin_memory())


@dataclass(frozen=True, slots=True)
class EmbedderMaker:
    """Makes the embedder of a model of the lake, in whatever process calls it."""

    lake_url: str
    model_id: str
    settings: InferenceSettings

    def __call__(self) -> Embedder:
        """Read the model, and build it.

        Raises:
            UsageError: there is no such model, or no such device.
            ArtifactError: its weights are damaged, or do not fit its settings.
        """
        lake = Lake.open(self.lake_url)
        return embedder_of(lake, find_model(lake, self.model_id), self.settings)


def embedder_of(lake: Lake, card: ModelCard, settings: InferenceSettings) -> Embedder:
    """The embedder of a model.

    Raises:
        UsageError: it gives no vectors, or there is no such device.
        ArtifactError: its weights are damaged, or do not fit its settings.
    """
    scale_mm = scale_of(card)
    net = build_net(net_settings(card))
    tensors = weights_from_bytes(read_weights(lake, card), card.model_id)
    fill_module(net if card.kind == TRIPLET else net.backbone, tensors, card.model_id)
    return Embedder(net, card.kind, scale_mm, settings)


def net_settings(card: ModelCard) -> Mapping[str, Any]:
    """What of a card's settings shapes the network.

    Raises:
        UsageError: the model gives no vectors.
    """
    if card.kind not in EMBEDDING_KINDS:
        raise UsageError(
            f"{card.model_id} is a {card.kind} model, which gives lesions no vectors",
            where="--model",
            next_step=f"name one of the kinds {', '.join(EMBEDDING_KINDS)}; `lesionary models list` has them",
        )
    names = {field.name for field in fields(NetSettings)}
    found = {name: value for name, value in card.settings.items() if name in names}
    if card.settings.get("multi_scale") is False:
        found["stages"] = [5]
    return found


def scale_of(card: ModelCard) -> float:
    """Pixel size in mm that a model was trained at.

    Raises:
        ArtifactError: the card does not say it.
    """
    scale = card.settings.get("scale_mm", PIXEL_MM)
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not PIXEL_MM <= scale <= 16 * PIXEL_MM:
        raise ArtifactError("its card states no scale in mm", where=card.model_id, next_step="train the model again")
    return float(scale)


def usable_device(name: str) -> torch.device:
    """A device by name.

    Raises:
        UsageError: this machine has none of the kind.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("no GPU is at hand", where="--gpus", next_step="leave the option out to use the CPU")
    return device


def fastest_precision(device: torch.device) -> Precision:
    """bf16 where the hardware has units for it: GPUs, and CPUs with AMX. Others only emulate it, or gain nothing."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if "amx_bf16" in _processor_flags() else "fp32"


def _processor_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())
