"""A trainer's settings out of one of its presets, with some of them changed: the same rules for every trainer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from lesionary.errors import UsageError

Settings = TypeVar("Settings")


def preset_settings(
    presets: Mapping[str, Settings], preset: str, changes: Mapping[str, Any] | None, what: str
) -> Settings:
    """A preset, with some settings changed; None among the changes leaves the preset's value.

    Args:
        presets: a trainer's, by name; dataclasses of one kind.
        preset: which.
        changes: values by the settings' names.
        what: the trainer, as a person calls it.

    Raises:
        UsageError: there is no such preset or setting, or a value is out of its range.
    """
    if preset not in presets:
        raise UsageError(f"there is no preset {preset}", next_step=f"known are {', '.join(presets)}")
    begun: Any = presets[preset]
    wanted = {name: value for name, value in (changes or {}).items() if value is not None}
    unknown = sorted(set(wanted) - {field.name for field in dataclasses.fields(begun)})
    if unknown:
        raise UsageError(f"{what} has no setting {', '.join(unknown)}")
    try:
        changed: Settings = dataclasses.replace(begun, **wanted)
    except TypeError as cause:
        raise UsageError(f"a setting of {what} has another type ({cause})") from cause
    return changed
