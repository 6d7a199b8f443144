"""Colours that people with any common colour vision can tell apart: the Okabe–Ito set, and one for each lesion type.

Colour never carries a meaning alone: figures add a word, a marker or a line style. Under full protanopia, deuteranopia
or tritanopia any two of these colours stay at least 16 apart in CIELAB (a test simulates it).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OKABE_ITO: Final[Mapping[str, str]] = MappingProxyType(
    {
        "black": "#000000",
        "orange": "#E69F00",
        "sky_blue": "#56B4E9",
        "bluish_green": "#009E73",
        "yellow": "#F0E442",
        "blue": "#0072B2",
        "vermillion": "#D55E00",
        "reddish_purple": "#CC79A7",
    }
)

GRID_COLOUR: Final = "#999999"
"""For grids only."""

# Where nobody said the type. Lighter greys run into purple and green for some readers; this one does not.
UNKNOWN_TYPE: Final = "unknown"
UNKNOWN_COLOUR: Final = "#5E5E5E"

# Yellow lines are faint on white paper, so yellow goes to bone, the rarest type of the release.
LESION_TYPE_COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bone": OKABE_ITO["yellow"],
        "abdomen": OKABE_ITO["orange"],
        "mediastinum": OKABE_ITO["reddish_purple"],
        "liver": OKABE_ITO["vermillion"],
        "lung": OKABE_ITO["blue"],
        "kidney": OKABE_ITO["bluish_green"],
        "soft_tissue": OKABE_ITO["sky_blue"],
        "pelvis": OKABE_ITO["black"],
        UNKNOWN_TYPE: UNKNOWN_COLOUR,
    }
)


def colour_of_type(lesion_type: str | None) -> str:
    """The type's colour as #RRGGBB; None and names that are not in `LESION_TYPES` get that of unknown."""
    return LESION_TYPE_COLOURS.get(lesion_type or UNKNOWN_TYPE, UNKNOWN_COLOUR)
