"""Target: settings, out of a file, the environment and flags."""

import contextlib
import dataclasses

from fuzz.contract import Target, require, scratch_file
from fuzz.mutations import joined, mutated_csv, mutated_part, mutated_toml, parts_of

from lesionary.errors import UsageError
from lesionary.settings import IngestSettings, TrainSettings, given_settings, parsed_flags, resolve
from trainers.detector.presets import DetectorSettings
from trainers.triplet.presets import TripletSettings

_KINDS = {"ingest": IngestSettings, "train": TrainSettings, "detector": DetectorSettings, "triplet": TripletSettings}


def run_settings(data: bytes) -> None:
    """A settings file, flags written NAME=VALUE, and environment variables, for several kinds of settings."""
    toml, flags, environment = parts_of(data, 3)
    path = scratch_file("lesionary.toml", toml)
    for section, kind in _KINDS.items():
        try:
            values, origins = given_settings(kind, section, flags={}, environment={}, config_file=path)
            require(set(values) <= set(origins), "where a value comes from")
            kind(**values)
        except UsageError:
            pass
    names = {"LESIONARY_INGEST_SHARD_MB": IngestSettings, "LESIONARY_TRAIN_GPUS": TrainSettings}
    text = environment.decode("utf-8", "surrogateescape").replace("\0", "")
    for name, kind in names.items():
        try:
            value = resolve(kind, name.split("_")[1].lower(), flags={}, environment={name: text}, config_file=path)
            require(dataclasses.is_dataclass(value.value), "settings")
        except UsageError:
            pass
    for kind in _KINDS.values():
        with contextlib.suppress(UsageError):
            kind(**parsed_flags(kind, flags.decode("utf-8", "surrogateescape").split("\n"), "--set"))


def settings_seeds() -> list[bytes]:
    toml = b"""[ingest]
namespace = "dl"
workers = 2
shard_mb = 64
annotations_only = false
key_file = "k"
[train]
preset = "smoke"
gpus = 0.5
threads = 1
[triplet]
steps = 10
learning_rate = 0.1
milestones = [0.5, 0.8]
[detector]
batch = 2
anchors_px = [16, 32.5]
windows_hu = [-1024, 3071]
"""
    return [
        joined(toml, b"steps=10\nlearning-rate=0.1\nmilestones=0.5,0.8", b"64"),
        joined(b"[ingest]\nfile_seconds = 5\n", b"batch=2\nworkers=3\ngpus=1", b"0.5"),
    ]


TARGETS = (
    Target(
        "settings", "lesionary.settings.{resolve, given_settings, parsed_flags}", run_settings, settings_seeds,
        mutated_part(mutated_toml, mutated_toml, mutated_csv), 4096,
    ),
)  # fmt: skip
