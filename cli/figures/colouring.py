"""What the colour of a point on a map says. Apart from the charts: the command names it before numpy is loaded."""

from enum import StrEnum


class Colour(StrEnum):
    """What the colour of a point says."""

    TYPE = "type"
    LOCATION = "location"
    SIZE = "size"
    PATIENT = "patient"
    SPLIT = "split"
