"""Charts as matplotlib holds them, beside the bytes that they become."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch):
    """Every figure made from now on, the newest last."""
    found = []
    made = Figure.__init__

    def remember(self, *arguments, **options):
        made(self, *arguments, **options)
        found.append(self)

    monkeypatch.setattr(Figure, "__init__", remember)
    return found
