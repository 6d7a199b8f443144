"""The eight lesion types of the release and their codes.

The order is the release's own (1 = bone … 8 = pelvis). Public re-listings of it exist that are wrong
(1 = lung, 7 = bone), so nothing else in the project may spell the mapping out again.
"""

LESION_TYPES: tuple[str, ...] = (
    "bone",
    "abdomen",
    "mediastinum",
    "liver",
    "lung",
    "kidney",
    "soft_tissue",
    "pelvis",
)

# The release writes -1 where nobody assigned a type (its whole training split).
UNKNOWN_TYPE_CODE = -1


def lesion_type_from_code(code: int) -> str | None:
    """The type's name for a release code 1…8, or None for -1.

    Raises:
        KeyError: the code is neither -1 nor 1…8.
    """
    if code == UNKNOWN_TYPE_CODE:
        return None
    if not 1 <= code <= len(LESION_TYPES):
        raise KeyError(code)
    return LESION_TYPES[code - 1]


def code_from_lesion_type(name: str | None) -> int:
    """The release's code for a type's name, -1 for None.

    Raises:
        ValueError: the name is not one of `LESION_TYPES`.
    """
    return UNKNOWN_TYPE_CODE if name is None else LESION_TYPES.index(name) + 1
