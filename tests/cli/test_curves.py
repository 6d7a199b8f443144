"""Charts are PNGs that show the report, whatever is missing of it, in colours that can be told apart."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.figures import palette
from cli.figures.curves import matching_chart, retrieval_chart
from store.evaluate import RetrievalSettings, evaluate_matching, evaluate_retrieval
from store.retrieval_scores import Labelled
from store.truth_pairs import TruthGroups, TruthSummary


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def shows(png, colour):
    """How many pixels have exactly this colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((pixels(png) == wanted).all(axis=2).sum())


def retrieval_report(known=True, name="location"):
    generator = np.random.default_rng(0)
    types = generator.integers(0, 3, 60) if known else np.full(60, -1)
    labelled = Labelled(
        (np.eye(4)[types] + generator.standard_normal((60, 4))).astype(np.float32),
        np.repeat(np.arange(12), 5),
        types,
        generator.random((60, 3)),
        np.full((60, 2), np.nan),
    )
    return evaluate_retrieval(name, labelled, RetrievalSettings(repeats=1))


def matching_report(groups_true):
    patients, values = np.zeros(4, np.int64), np.array([[0.0], [0.1], [1.0], [1.2]], np.float32)
    truth = TruthGroups(np.array(groups_true), TruthSummary("pairs", 4, 2, 4, 0, (), 0))

    def match(t1, t2):
        return np.concatenate([[0], np.cumsum(np.diff(values[:, 0]) > t2)])

    return evaluate_matching("location", patients, values, truth, match, t1=0.0, t2=0.15)


def test_a_retrieval_chart_has_bars_of_both_modes():
    png = retrieval_chart(retrieval_report())

    assert pixels(png).shape == (648, 1500, 3)
    assert shows(png, palette.BLUE) > 3000
    assert shows(png, palette.ORANGE) > 3000


def test_a_matching_chart_marks_the_chosen_and_the_best_point():
    png = matching_chart(matching_report([0, 0, 1, 1]))

    assert pixels(png).shape == (552, 1260, 3)
    assert min(shows(png, colour) for colour in (palette.BLUE, palette.GREEN, palette.VERMILION)) > 50


@pytest.mark.parametrize("name", ["location", "$\\frac{x", "cnn_v2|a"])
def test_charts_of_what_is_not_known_and_of_odd_names_are_drawn(name):
    assert pixels(retrieval_chart(retrieval_report(known=False, name=name))).std() > 0
    assert pixels(matching_chart(matching_report([0, 1, 2, 3]))).std() > 0


def test_the_same_report_draws_the_same_bytes():
    report = matching_report([0, 0, 1, 1])

    assert matching_chart(report) == matching_chart(report)


def test_pyplot_is_never_loaded():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_curves import *\n"
        "retrieval_chart(retrieval_report()); assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, __file__.rpartition("/")[0]], capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr


def brightness(colour):
    """Relative luminance of a colour, 0 to 1 (sRGB)."""
    shares = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def seen_by_a_deuteranope(colour):
    """Machado, Oliveira and Fernandes 2009: severity 1, applied to sRGB."""
    shares = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    matrix = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    return matrix @ shares


def test_the_palette_can_be_told_apart_without_green():
    assert len(set(palette.OKABE_ITO)) == 8
    for one, other in itertools.combinations(palette.OKABE_ITO, 2):
        apart = np.abs(seen_by_a_deuteranope(one) - seen_by_a_deuteranope(other)).max()
        assert apart > 40, (one, other)


def test_lines_are_told_from_white_paper():
    for colour in (palette.BLUE, palette.VERMILION, palette.GREEN, palette.BLACK):
        assert 1.05 / (brightness(colour) + 0.05) > 3
