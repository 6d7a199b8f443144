"""TEMPORARY."""


def checked_condition(connection: object, text: str) -> str:  # noqa: ARG001
    """Nothing."""
    return text
