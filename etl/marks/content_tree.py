"""A structured report as a tree, whatever is broken in it.

pydicom reads elements when they are asked for and raises whatever a broken one makes its converters raise, so every
access goes through the functions here: an element that cannot be read counts as absent, a part of the tree that cannot
be read says so (`is_damaged`), and only nesting beyond any real report's refuses the file.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import SupportsFloat, cast

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from etl.marks.codes import Concept, code_of_item, concept_of, known_code
from etl.quality import Reason, RefusedError

MAX_DEPTH = 64
# Names and free text hidden in a field for identifiers must not pass as one.
_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)


@dataclass(slots=True, eq=False)
class ContentItem:
    """One item of the tree."""

    value_type: str
    name: str
    """Its concept name as scheme:code; empty when it has none."""
    concept: Concept | None
    dataset: Dataset = field(repr=False)
    children: tuple["ContentItem", ...] = field(repr=False)
    is_damaged: bool
    """It has children that cannot be read."""
    linked: tuple["ContentItem", ...] = field(default=(), repr=False)
    """The children, those given by reference replaced by what they refer to. May run in circles: never walk these."""

    def walk(self) -> Iterator["ContentItem"]:
        """This item and all below it, in document order."""
        yield self
        for child in self.children:
            yield from child.walk()


def content_tree(dataset: Dataset) -> ContentItem:
    """The whole document; refused when nested deeper than any report is."""
    root = _item(dataset, 0)
    for item in root.walk():
        item.linked = tuple(_referred(root, child) or child for child in item.children)
    return root


def value_of(dataset: Dataset, keyword: str) -> object:
    """An element's value; None when it is absent or cannot be read."""
    try:
        return dataset.get(keyword)
    except RecursionError:
        raise RefusedError(Reason.NESTING_TOO_DEEP) from None
    except Exception:  # noqa: BLE001 (pydicom raises whatever a broken element makes its converters raise)
        return None


def is_written(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is there and not empty, readable or not."""
    try:
        return keyword in dataset and not dataset[keyword].is_empty
    except Exception:  # noqa: BLE001 (it is there and broken)
        return True


def text_of(dataset: Dataset, keyword: str) -> str:
    """A short text without its padding; empty when there is none."""
    value = value_of(dataset, keyword)
    return value.strip(" \0") if isinstance(value, str) else ""


def uid_of(dataset: Dataset, keyword: str) -> str | None:
    """An identifier, when it has the form of one."""
    text = text_of(dataset, keyword)
    return text if _UID.fullmatch(text) else None


def numbers_of(dataset: Dataset, keyword: str) -> tuple[float, ...] | None:
    """An element's numbers, one or many; None when it is absent, or one of them is not a finite number."""
    value = value_of(dataset, keyword)
    if value is None or isinstance(value, bytes):
        return None
    parts = value if isinstance(value, (MultiValue, list)) else [value]
    try:
        numbers = tuple(float(cast("SupportsFloat", part)) for part in parts)
    except Exception:  # noqa: BLE001 (the parts convert themselves when they are asked for)
        return None
    return numbers if all(math.isfinite(number) for number in numbers) else None


def items_of(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; none when it is absent or cannot be read."""
    return _sequence(dataset, keyword) or ()


def code_in(dataset: Dataset, keyword: str) -> tuple[str, str] | None:
    """Value and scheme of the first item of a code sequence."""
    items = items_of(dataset, keyword)
    return code_of_item(items[0]) if items else None


def known_codes(items: Iterator[ContentItem]) -> tuple[str | None, bool]:
    """The first code of some CODE items that may pass, and whether any may not."""
    written = [code_in(item.dataset, "ConceptCodeSequence") for item in items]
    known = [known_code(*code) if code else None for code in written]
    return next((code for code in known if code), None), None in known


def _sequence(dataset: Dataset, keyword: str) -> tuple[Dataset, ...] | None:
    value = value_of(dataset, keyword)
    if not isinstance(value, Sequence):
        return None
    try:
        return tuple(value)
    except Exception:  # noqa: BLE001 (it may break at iteration)
        return None


def _item(dataset: Dataset, depth: int) -> ContentItem:
    if depth > MAX_DEPTH:
        raise RefusedError(Reason.NESTING_TOO_DEEP, f"more than {MAX_DEPTH} levels")
    below = _sequence(dataset, "ContentSequence")
    code = code_in(dataset, "ConceptNameCodeSequence")
    return ContentItem(
        value_type=text_of(dataset, "ValueType").upper(),
        name=f"{code[1].strip()}:{code[0].strip()}" if code else "",
        concept=concept_of(*code) if code else None,
        dataset=dataset,
        children=tuple(_item(child, depth + 1) for child in below or ()),
        is_damaged=below is None and is_written(dataset, "ContentSequence"),
    )


def _referred(root: ContentItem, child: ContentItem) -> ContentItem | None:
    """The item that a child by reference means: a path of positions from the root, which is 1."""
    path = numbers_of(child.dataset, "ReferencedContentItemIdentifier")
    if not path:
        return None
    target = root
    for position in path[1:]:
        if not 1 <= position <= len(target.children):
            return None
        target = target.children[int(position) - 1]
    return target
