import itertools

import numpy as np
import pytest

from cli.figures.palette import LESION_TYPE_COLOURS, OKABE_ITO, UNKNOWN_TYPE, colour_of_type
from lesionary.anatomy import LESION_TYPES

# Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear_rgb(colour):
    value = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def cielab(linear):
    xyz = SRGB_TO_XYZ @ np.clip(linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one, other, deficiency):
    seen = [cielab(np.asarray(DEFICIENCIES[deficiency]) @ linear_rgb(colour)) for colour in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def test_simulated_deficiency_takes_red_and_green_for_alike():
    assert distance("#A06000", "#608000", "deuteranopia") < 0.5 * distance("#A06000", "#608000", "none")


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("palette", [OKABE_ITO, LESION_TYPE_COLOURS], ids=["okabe_ito", "lesion_types"])
def test_any_two_colours_stay_apart(palette, deficiency):
    for one, other in itertools.combinations(palette, 2):
        assert distance(palette[one], palette[other], deficiency) >= 16, (one, other)


def test_every_type_and_unknown_have_their_own_colour():
    assert set(LESION_TYPE_COLOURS) == {*LESION_TYPES, UNKNOWN_TYPE}
    assert len(set(LESION_TYPE_COLOURS.values())) == len(LESION_TYPES) + 1


def test_missing_type_gets_the_colour_of_unknown():
    assert colour_of_type(None) == colour_of_type("no such type") == LESION_TYPE_COLOURS[UNKNOWN_TYPE]
    assert colour_of_type("liver") == LESION_TYPE_COLOURS["liver"]
