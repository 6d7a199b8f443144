"""Charts are PNGs that show the report, whatever is missing of it."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.figures.curves import matching_chart, retrieval_chart
from cli.figures.palette import OKABE_ITO
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
    assert shows(png, OKABE_ITO["blue"]) > 3000
    assert shows(png, OKABE_ITO["orange"]) > 3000


def test_a_matching_chart_marks_the_chosen_and_the_best_point():
    png = matching_chart(matching_report([0, 0, 1, 1]))

    assert pixels(png).shape == (552, 1260, 3)
    assert min(shows(png, OKABE_ITO[name]) for name in ("blue", "bluish_green", "vermillion")) > 50


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
