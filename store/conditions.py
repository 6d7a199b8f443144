"""What people write behind `--where`: one yes-or-no expression over `lesion_features` (or another view), nothing else.

The engine's own parser decides. The text is put where only an expression fits, and the tree that comes out must have
that expression, whole, in its place: whatever would close our parenthesis, add a clause or begin another statement
gives another tree. The engine then binds it, without running it, so that unknown columns are named with near matches.
"""

import json
from typing import TYPE_CHECKING, Any

from lesionary.errors import StoreError
from store.limits import Deadline
from store.members import LESIONS, Members
from store.queries import refusal

if TYPE_CHECKING:
    import duckdb

CONDITION_SECONDS = 60.0
WHERE_OPTION = "--where"
_MOST_CHARACTERS = 10_000
_EXAMPLE = "for example \"lesion_type = 'liver' AND long_mm > 10\""


def checked_condition(
    connection: "duckdb.DuckDBPyConnection",
    text: str,
    seconds: float = CONDITION_SECONDS,
    option: str = WHERE_OPTION,
    members: Members = LESIONS,
) -> str:
    """The text itself, to be put between a parenthesis and a line break with a parenthesis.

    Args:
        connection: on the store.
        text: the condition.
        seconds: what it may take to be understood.
        option: the one it came with, for refusals.
        members: whose view it is about.

    Raises:
        StoreError: it is not one yes-or-no expression over that view, or takes too long to understand.
    """
    if not text.strip() or len(text) > _MOST_CHARACTERS or "\0" in text:
        raise _refused(f"a condition of 1 to {_MOST_CHARACTERS} characters is needed", option)
    import duckdb

    try:
        with Deadline(connection, seconds).running():
            _require_expression(connection, text, option)
            # Bound, not run: by itself for its type, and where it will stand, which is no place for aggregates.
            table = f"{members.wide} AS {members.view}"
            bound = connection.sql(f"SELECT ({text}\n) AS condition FROM {table} WHERE ({text}\n)")  # noqa: S608
            kind = str(bound.types[0])
    except duckdb.Error as error:
        raise _refused(refusal(error), option) from None
    except RecursionError:
        raise _refused("it is nested too deeply", option) from None
    if kind != "BOOLEAN":
        raise _refused(f"a condition is true or false, this one is {kind}", option)
    return text


def _require_expression(connection: "duckdb.DuckDBPyConnection", text: str, option: str) -> None:
    """The tree of `coalesce(<text>, false)` has the text as its first operand exactly when it is one expression."""
    statement = f"SELECT coalesce({text}\n, false) FROM lesion_features"  # noqa: S608 (parsed, never run)
    ((found,),) = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
    tree = json.loads(found)
    if tree.get("error"):
        raise _refused(" ".join(str(tree.get("error_message", "it cannot be read")).split())[:300], option)
    try:
        (parsed,) = tree["statements"]
        node = parsed["node"]
        (selected,) = node["select_list"]
        first, second = selected["children"]
        whole = (
            node["type"] == "SELECT_NODE"
            and selected["type"] == "OPERATOR_COALESCE"
            and node["where_clause"] is None
            and not any(node[clause] for clause in ("modifiers", "group_expressions", "having", "qualify", "sample"))
            and node["from_table"]["type"] == "BASE_TABLE"
        )
        whole = whole and not node["cte_map"]["map"] and second.get("value", second.get("literal")) is not None
    except (KeyError, TypeError, ValueError):
        whole, first = False, None
    if not whole:
        raise _refused("this is more than one expression", option)
    if _holds(first, "PARAMETER"):
        raise _refused("a condition has no parameters", option)


def _holds(tree: Any, kind: str) -> bool:  # noqa: ANN401 (a tree of JSON)
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get("class") == kind:
                return True
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return False


def _refused(what: str, option: str) -> StoreError:
    return StoreError(what, where=option, next_step=_EXAMPLE)
