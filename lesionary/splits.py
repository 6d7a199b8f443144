"""Splitting by patient: all of a patient's lesions land in one part, whatever order they come in.

A patient's part follows from a digest of the pseudonym alone, so it never changes when others join or leave, and
every machine agrees without talking to another. Sources that publish a split (DeepLesion does) keep their own.
"""

import hashlib

SPLITS: tuple[str, ...] = ("train", "val", "test")

# Upper ends of the parts on the unit interval: 70 % train, 15 % val, 15 % test, as in the DeepLesion papers.
_UPPER_ENDS = (0.70, 0.85, 1.0)


def split_of_patient(patient_id: str, *, salt: str = "") -> str:
    """The part a patient belongs to: train, val or test.

    Args:
        patient_id: the pseudonym.
        salt: gives an independent split of the same patients, for repeated experiments.
    """
    digest = hashlib.sha256(f"{salt}\x00{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    return next(split for split, end in zip(SPLITS, _UPPER_ENDS, strict=True) if position < end)


def split_from_code(code: int) -> str | None:
    """The part for the release's codes 1 (train), 2 (val), 3 (test); None for any other."""
    return SPLITS[code - 1] if 1 <= code <= len(SPLITS) else None
