"""Word of a training's progress on its way from the first Ray worker to the driver.

An actor of its own: a report to Ray Train's controller makes all workers wait for each other and for the controller.
Imports nothing, so that its process stays small.
"""

from collections.abc import Mapping


class Board:
    """Keeps the newest word."""

    def __init__(self) -> None:
        self._starts = 0
        self._word: Mapping[str, object] | None = None

    def started(self) -> None:
        """Count an attempt of the workers."""
        self._starts += 1

    def post(self, word: Mapping[str, object]) -> None:
        """Leave word."""
        self._word = word

    def read(self) -> tuple[int, Mapping[str, object] | None]:
        """Attempts so far, and the word that was not read yet."""
        word, self._word = self._word, None
        return self._starts, word
