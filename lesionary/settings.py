"""Settings: frozen dataclasses, resolved default < file < environment < flag, and saved beside what they made.

    [ingest]                     # lesionary.toml, or the file named by --config / LESIONARY_CONFIG
    workers = 8
                                 # LESIONARY_INGEST_WORKERS=8 overrules the file, --workers 8 overrules both

A key that no dataclass has, or a value that does not parse, is an error that names the place: a misspelt setting
must never pass for a default.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from lesionary.errors import UsageError
from lesionary.identifiers import checked_namespace

DEFAULT_CONFIG_FILE = "lesionary.toml"
_ENVIRONMENT_PREFIX = "LESIONARY"

# A file may hold whole numbers of any length, which neither floating point nor a sentence could.
_LONGEST_NUMBER_BITS = 64

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})

Settings = TypeVar("Settings")
Value = TypeVar("Value")


def require_ranges(settings: object, *ranges: tuple[str, float, float]) -> None:
    """Refuse settings of which one lies outside its range; None, where a setting may be that, passes.

    Args:
        settings: that were just made.
        ranges: names, lowest and highest values.

    Raises:
        UsageError: a value is out of its range.
    """
    for name, low, high in ranges:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            low_text, high_text, text = (f"{one:g}" if isinstance(one, float) else one for one in (low, high, value))
            raise UsageError(f"{name} must lie between {low_text} and {high_text}, found {text}")


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How an ingest runs."""

    namespace: str | None = None
    """Starts every identifier of the source; dl for a release and pacs for an export unless given."""
    workers: int = 0
    """Worker processes; 0 = one per core of the cluster."""
    shard_mb: int = 256
    """Upper size of one shard of slices; small sources are cut finer to keep every worker busy."""
    commit_seconds: int = 60
    """A crash loses at most this much work."""
    annotations_only: bool = False
    """Take the annotation table without images."""
    key_file: str | None = field(default=None, metadata={"recorded": False})
    """Key of a PACS export's pseudonyms; in the person's configuration folder unless given."""
    file_memory_mb: int = 3_072
    """Memory that reading one file of a PACS export may take."""
    file_seconds: int = 60
    """Time that reading one file of a PACS export may take."""

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        if self.namespace is not None:
            checked_namespace(self.namespace)
        require_ranges(
            self,
            ("workers", 0, 65_536),
            ("shard_mb", 1, 2_048),
            ("commit_seconds", 1, 86_400),
            ("file_memory_mb", 64, 1 << 20),
            ("file_seconds", 1, 3_600),
        )


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a training is run; what it computes is its trainer's settings (`trainers/*/presets.py`)."""

    preset: str = "small"
    """smoke, small or paper."""
    workers: int = 1
    """Processes that share each batch; more than one run on Ray."""
    gpus: float | None = None
    """GPUs of each worker; a fraction lets several share one; None = one where there are enough, else none."""
    threads: int = 0
    """PyTorch's threads in each worker; 0 = its share of the cores."""
    max_failures: int = 2
    """How often lost workers are replaced."""

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        require_ranges(self, ("workers", 1, 65_536), ("threads", 0, 4_096), ("max_failures", 0, 1_000_000))
        if self.gpus is not None and not (0 <= self.gpus <= 1 or (self.gpus.is_integer() and self.gpus <= 64)):
            raise UsageError(f"gpus must be a fraction or a whole number of GPUs, found {self.gpus:g}")


@dataclass(frozen=True, slots=True)
class Resolved(Generic[Settings]):
    """Settings, and where each value came from: default, file, environment or flag."""

    value: Settings
    origins: Mapping[str, str]

    def record(self) -> dict[str, object]:
        """Plain values for the copy that is saved beside an artifact; of a path of this machine, only its origin."""
        values = dataclasses.asdict(self.value)  # type: ignore[call-overload]
        local = {one.name for one in dataclasses.fields(self.value) if not one.metadata.get("recorded", True)}  # type: ignore[arg-type]
        return {
            name: {"from": self.origins[name]} if name in local else {"value": value, "from": self.origins[name]}
            for name, value in values.items()
        }


def resolve(
    kind: type[Settings],
    section: str,
    *,
    flags: Mapping[str, object | None],
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> Resolved[Settings]:
    """Settings of one kind from all their sources.

    Args:
        kind: a settings dataclass.
        section: its table in the file, and the middle of its environment names.
        flags: what the person typed; None = not typed.
        environment: the process's environment.
        config_file: a file that must exist; None = `lesionary.toml` here, when there is one.

    Raises:
        UsageError: the file cannot be read, a key is unknown, or a value does not fit.
    """
    values, origins = given_settings(kind, section, flags=flags, environment=environment, config_file=config_file)
    return Resolved(kind(**values), origins)


def given_settings(
    kind: type[object],
    section: str,
    *,
    flags: Mapping[str, object | None],
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """As `resolve`, but only what was given, for settings whose defaults come from elsewhere: values, and all origins.

    Raises:
        UsageError: as `resolve`.
    """
    hints = typing.get_type_hints(kind)
    table = _file_section(config_file, section)
    if unknown := set(table) - set(hints):
        raise UsageError(
            f"there is no setting {', '.join(sorted(unknown))}",
            where=f"[{section}] of the configuration file",
            next_step=f"known are {', '.join(sorted(hints))}",
        )
    values: dict[str, Any] = {}
    origins: dict[str, str] = dict.fromkeys(hints, "default")
    for name, hint in hints.items():
        variable = f"{_ENVIRONMENT_PREFIX}_{section}_{name}".upper()
        if flags.get(name) is not None:
            values[name], origins[name] = flags[name], "flag"
        elif variable in environment:
            values[name] = _parse(environment[variable], hint, variable)
            origins[name] = "environment"
        elif name in table:
            values[name] = _checked(table[name], hint, f"{name} in [{section}]")
            origins[name] = "file"
    return values, origins


def parsed_flags(kind: type[object], pairs: Sequence[str], option: str) -> dict[str, object]:
    """Settings written as NAME=VALUE.

    Raises:
        UsageError: there is no such setting, or the value does not fit.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in hints:
            raise UsageError(
                f"there is no setting {name!r}" if equals else f"{pair!r} is not NAME=VALUE",
                where=option,
                next_step=f"known are {', '.join(sorted(hints))}",
            )
        values[name] = _parse(text, hints[name], f"{option} {name}")
    return values


def _file_section(config_file: Path | None, section: str) -> dict[str, object]:
    path = config_file or Path(DEFAULT_CONFIG_FILE)
    if config_file is None and not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as cause:
        raise UsageError(
            f"the configuration file cannot be read: {cause}", where=path.name, next_step="see docs/cli.md"
        ) from cause
    table = content.get(section, {})
    if not isinstance(table, dict):
        raise UsageError(f"[{section}] must be a table", where=path.name)
    return table


def _plain_type(hint: object) -> type[Any]:
    """The type itself, without an optional None; that of its values for a choice of literals, tuple for a tuple."""
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is typing.Literal:
        return type(typing.get_args(hint)[0])
    return typing.cast("type", typing.get_origin(hint) or hint)


def _parse(text: str, hint: object, where: str) -> object:
    """A value out of the environment's text."""
    kind = _plain_type(hint)
    lowered = text.strip().lower()
    if kind is bool and lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    try:
        if kind is tuple:
            of = typing.get_args(hint)[0]
            return tuple(_bounded(of(part), where) for part in text.split(",") if part.strip())
        if kind is not bool:
            return _bounded(kind(text), where)
    except ValueError:
        pass
    raise UsageError(f"{text!r} is not a value of type {kind.__name__}", where=where)


def _checked(value: object, hint: object, where: str) -> object:
    """A value out of the file, or one of its values in a list."""
    kind = _plain_type(hint)
    if kind is tuple and isinstance(value, list):
        return tuple(_checked(one, typing.get_args(hint)[0], where) for one in value)
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(_bounded(value, where))
    raise UsageError(f"a value of type {kind.__name__} is needed, found {type(value).__name__}", where=where)


def _bounded(value: Value, where: str) -> Value:
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER_BITS:
        raise UsageError("the number is beyond any that can be computed with", where=where)
    return value
