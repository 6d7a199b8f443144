"""Which lesions a question is about: a condition of the person's, and what was known by a day."""

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError, UsageError
from store.conditions import CONDITION_SECONDS, WHERE_OPTION, checked_condition
from store.limits import Deadline
from store.members import LESIONS, Members
from store.queries import refusal

if TYPE_CHECKING:
    import duckdb

_AS_OF = re.compile(r"(study:)?(\d{1,6})")


def as_of_condition(text: str) -> str:
    """The condition for what was known by a day of each patient's course (`120`), or by a study of it (`study:3`).

    Lesions of studies whose day, or order, nobody knows were not known by any day.

    Raises:
        UsageError: the text is neither.
    """
    found = _AS_OF.fullmatch(text.strip())
    if not found:
        raise UsageError(
            "a day since the patient's first study is needed, or study:N",
            where="--as-of",
            next_step="for example --as-of 120, or --as-of study:2",
        )
    return f"{'study_index' if found[1] else 'study_day'} <= {int(found[2])}"


def lesions_where(
    connection: "duckdb.DuckDBPyConnection",
    where: str | None,
    as_of: str | None = None,
    seconds: float = CONDITION_SECONDS,
    option: str = WHERE_OPTION,
    members: Members = LESIONS,
) -> NDArray[np.int64]:
    """Numbers of the lesions, or other members, that are meant, ascending; all of them without a condition.

    Args:
        connection: on the store.
        where: a SQL condition over `lesion_features`, from a person.
        as_of: as `as_of_condition` takes it.
        seconds: what the condition may take in the engine.
        option: the option that `where` came with, for refusals.
        members: what is asked for; the condition is over their view.

    Raises:
        StoreError: the condition is none, takes too long, or no lesion is left.
        UsageError: the day is none.
    """
    conditions = [f"({checked_condition(connection, where, seconds, option, members)}\n)"] if where is not None else []
    conditions += [as_of_condition(as_of)] if as_of is not None else []
    import duckdb

    try:
        with Deadline(connection, seconds).running():
            rows = connection.execute(
                f"SELECT lesion_number FROM {members.wide} AS {members.view} "  # noqa: S608 (checked above)
                f"WHERE {' AND '.join(conditions) or 'true'}"
            ).fetchnumpy()
    except duckdb.Error as error:
        raise StoreError(refusal(error), where=option, next_step="change the condition") from None
    numbers: NDArray[np.int64] = np.sort(np.asarray(rows["lesion_number"], np.int64))
    if not len(numbers):
        asked = " and ".join(name for name, given in ((option, where), ("--as-of", as_of)) if given is not None)
        raise StoreError(
            f"no {members.noun} is left" if asked else f"the store holds no {members.noun}", where=asked,
            next_step="widen the condition" if asked else "run `lesionary ingest` and `lesionary sync`",
        )  # fmt: skip
    return numbers


def lesion_ids_where(connection: "duckdb.DuckDBPyConnection", where: str) -> frozenset[str]:
    """Names of the lesions that a condition leaves; see `lesions_where`.

    Raises:
        StoreError: the condition is none, takes too long, or no lesion is left.
    """
    return frozenset(lesion_names(connection, lesions_where(connection, where)))


def lesion_names(connection: "duckdb.DuckDBPyConnection", numbers: NDArray[np.int64]) -> list[str]:
    """Names of lesions by their numbers, in the order of the names."""
    rows = connection.execute(
        "SELECT lesion_id FROM lake_rows.lesion_features WHERE lesion_number IN (SELECT unnest(?::BIGINT[])) "
        "ORDER BY lesion_id",
        [numbers.tolist()],
    ).fetchall()
    return [name for (name,) in rows]
