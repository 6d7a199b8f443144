"""JSON out of files that may hold anything."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 (whatever the text holds)
    """The value that a text holds.

    Raises:
        ValueError: it is no JSON, or lists and objects are nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
