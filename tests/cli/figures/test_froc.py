"""The chart of detectors: it shows what it is given, and the same every time."""

import io

import numpy as np
import pytest
from PIL import Image

from cli.figures.froc import DetectorCurves, detection_chart

RATES, OVERLAPS = (0.5, 1.0, 2.0), (0.25, 0.5, 0.75)


def curves(name="one", top=0.9):
    return DetectorCurves(
        name=name,
        false_positives=np.linspace(0, 3, 5_000),
        sensitivities=np.linspace(0, top, 5_000),
        at_rates=(0.15, 0.3, None),
        low=(0.1, 0.2, None),
        high=(0.2, 0.4, None),
        top_one=(0.9, 0.6, None),
    )


def test_the_same_curves_draw_the_same_picture_and_others_another():
    drawn = detection_chart([curves()], RATES, OVERLAPS)

    assert drawn == detection_chart([curves()], RATES, OVERLAPS)
    assert drawn != detection_chart([curves(top=0.5)], RATES, OVERLAPS)
    assert Image.open(io.BytesIO(drawn)).size == (1380, 600)


def test_many_detectors_with_odd_names_are_drawn():
    many = [curves(f"$\\frac{{{at}") for at in range(9)]

    drawn = detection_chart(many, RATES, OVERLAPS, overlap_name="IoBB", image_name="sub-volume")

    assert np.asarray(Image.open(io.BytesIO(drawn)).convert("L")).std() > 0


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        detection_chart([], RATES, OVERLAPS)
