"""A categoriser's categories in the lake: how many lesions each has, and what people call it.

A lesion's category is what the model says of it under its highest round: the word of its network. Earlier rounds are
how it came there, and know lesions outside the test split only.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from lesionary.detection_tables import CATEGORIES
from lesionary.errors import UsageError
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import LABELS

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|[ -](?=[A-Za-z0-9])){0,39}")


@dataclass(frozen=True, slots=True)
class Category:
    """One of a model's categories."""

    number: int
    name: str | None
    """None until somebody has named it."""
    lesions: int


def last_labels(lake: Lake, model_id: str, labels: pa.Table | None = None) -> pa.Table:
    """Lesion, category number and score of every lesion that a model has sorted: rows of its highest round.

    Args:
        lake: that holds the labels.
        model_id: the categoriser's.
        labels: its rows of table labels, where the caller has read them already.

    Returns:
        Columns `lesion_id`, `round`, `category` (int32) and `score`.
    """
    rows = lake.read(LABELS.name, where=pc.field("model_id") == model_id) if labels is None else labels
    if rows.num_rows:
        rows = rows.filter(pc.equal(rows["round"], pc.max(rows["round"])))
    category = pc.cast(rows["label"], pa.int32())
    return rows.select(["lesion_id", "round", "score"]).append_column("category", category)


def read_categories(lake: Lake, model_id: str) -> list[Category]:
    """A model's categories by number; none where it has sorted nothing."""
    rows = lake.read(CATEGORIES.name, where=pc.field("model_id") == model_id).sort_by("category")
    return [Category(row["category"], row["name"], row["lesions"]) for row in rows.to_pylist()]


def count_categories(lake: Lake, model_id: str, labels: pa.Table, categories: int) -> None:
    """Write how many lesions each category has; names stay.

    Args:
        lake: where to.
        model_id: the categoriser's.
        labels: its rows of table labels.
        categories: how many it has; one may be empty.
    """
    names = {one.number: one.name for one in read_categories(lake, model_id)}
    numbers = last_labels(lake, model_id, labels)["category"]
    counts = {row["values"]: row["counts"] for row in pc.value_counts(numbers).to_pylist()}
    _write(lake, model_id, [Category(at, names.get(at), counts.get(at, 0)) for at in range(categories)])


def name_category(lake: Lake, model_id: str, number: int, name: str) -> list[Category]:
    """Give a category a name; all of the model's categories, with it. Two may have the same name.

    Raises:
        UsageError: there is no such category, or the name is not allowed.
    """
    wanted = checked_category_name(name)
    found = read_categories(lake, model_id)
    if number not in {one.number for one in found}:
        known = f"it has 0 to {found[-1].number}" if found else "it has none: run `lesionary categorise apply`"
        raise UsageError(f"{model_id} has no category {number}", where="categorise name", next_step=known)
    named = [Category(one.number, wanted if one.number == number else one.name, one.lesions) for one in found]
    _write(lake, model_id, named)
    return named


def checked_category_name(name: str) -> str:
    """The name itself, if a category may have it.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "a category's name is 1 to 40 letters and digits, with single spaces or dashes between them",
            where="categorise name",
            next_step='for example "chest lymph node"',
        )
    return name


def _write(lake: Lake, model_id: str, categories: list[Category]) -> None:
    now = datetime.now(UTC)
    rows = [
        {"model_id": model_id, "category": one.number, "name": one.name, "lesions": one.lesions, "created_at": now}
        for one in categories
    ]
    write_results(lake, model_id, {CATEGORIES.name: [pa.Table.from_pylist(rows, schema=CATEGORIES.schema)]})
