"""Values out of a person's JSON: what is not as it should be is one line that names the file and the place in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesionary.errors import UsageError
from lesionary.json_text import parse_json

# Whole numbers up to here are the same in JSON, in floating point and in arrays.
_MOST = 2**53


def fail(file: Path, what: str, place: str = "", next_step: str = "") -> UsageError:
    """The error that says what is wrong with a file, and where in it."""
    return UsageError(what, where=f"{file.name}: {place}" if place else file.name, next_step=next_step)


def read_json_value(file: Path) -> object:
    """The value that a JSON file holds.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return parse_json(file.read_bytes())
    except OSError as cause:
        raise fail(file, f"the file cannot be read ({cause.strerror or type(cause).__name__})") from cause
    except ValueError as cause:
        raise fail(file, f"this is no JSON ({type(cause).__name__})") from cause


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a list; every method raises `UsageError` for a value that is missing or of another kind."""

    file: Path
    place: str
    """Such as lesions[3]."""
    values: Mapping[str, object]

    def has(self, name: str) -> bool:
        """Whether it says anything of that name."""
        return self.values.get(name) is not None

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        return default if default is not None and not self.has(name) else self._number(name, self.values.get(name))

    def whole(self, name: str) -> int:
        """A whole number."""
        return self._whole(name, self.values.get(name))

    def flag(self, name: str) -> bool:
        """True or false, or 1 or 0; false when missing."""
        value = self.values.get(name)
        if value is None or value in (False, True, 0, 1):
            return bool(value)
        raise self.error(f"{name} is neither true nor false")

    def name(self, name: str) -> str:
        """A text, or a whole number as text."""
        value = self.values.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(self._whole(name, value))
        raise self.error(f"{name} is neither a text nor a whole number")

    def numbers(self, name: str, count: int) -> list[float]:
        """So many finite numbers."""
        return [self._number(name, value) for value in self._list(name, self.values.get(name), count)]

    def whole_numbers(self, name: str, count: int) -> list[int]:
        """So many whole numbers."""
        return [self._whole(name, value) for value in self._list(name, self.values.get(name), count)]

    def box(self, name: str = "box") -> list[float]:
        """x0, y0, x1, y1."""
        return self._box(name, self.values.get(name))

    def boxes_by_slice(self, name: str) -> dict[int, list[float]]:
        """An object of boxes by the numbers of their slices."""
        held = self.values.get(name)
        if not isinstance(held, Mapping):
            raise self.error(f"{name} is no object of boxes by slice")
        return {self._slice(name, key): self._box(f"{name} {key}", value) for key, value in held.items()}

    def error(self, what: str) -> UsageError:
        """That something is wrong with it."""
        return fail(self.file, what, self.place)

    def _box(self, name: str, value: object) -> list[float]:
        x0, y0, x1, y1 = (self._number(name, one) for one in self._list(name, value, 4))
        if x1 < x0 or y1 < y0:
            raise self.error(f"{name} ends before it begins: x0, y0, x1, y1 are needed")
        return [x0, y0, x1, y1]

    def _slice(self, name: str, key: str) -> int:
        try:
            return self._whole(name, int(key))
        except ValueError:
            raise self.error(f"{name} names a slice that is no whole number") from None

    def _list(self, name: str, value: object, count: int) -> list[object]:
        if not isinstance(value, list) or len(value) != count:
            raise self.error(f"{name} is no list of {count} numbers")
        return value

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST:
            return float(value)
        raise self.error(f"{name} is no finite number" if value is not None else f"{name} is missing")

    def _whole(self, name: str, value: object) -> int:
        number = self._number(name, value)
        if number != int(number):
            raise self.error(f"{name} is no whole number")
        return int(number)


def entries(file: Path, held: Mapping[str, object], name: str, *, needed: bool = True) -> list[Entry]:
    """The objects of one of a file's lists.

    Raises:
        UsageError: the list is missing though it is needed, or holds something else.
    """
    if name not in held and not needed:
        return []
    if not isinstance(held.get(name), list):
        raise fail(file, f"the list {name} is missing")
    return listed(file, held[name], name)


def listed(file: Path, held: object, name: str) -> list[Entry]:
    """The objects of a list.

    Raises:
        UsageError: it is none, or holds something else.
    """
    if not isinstance(held, list):
        raise fail(file, f"{name} is no list")
    found = []
    for at, one in enumerate(held):
        if not isinstance(one, Mapping):
            raise fail(file, "an object is needed", f"{name}[{at}]")
        found.append(Entry(file, f"{name}[{at}]", one))
    return found
