"""Whose vectors a feature set holds: marked lesions', or detections'.

Both are named by numbers of one sequence, so that a search never has to know which of them it looks at. What differs
is where their rows are, what people call the view that conditions are about, and which columns describe a hit.
"""

from dataclasses import dataclass

from lesionary.identifiers import holds_detections


@dataclass(frozen=True, slots=True)
class Members:
    """Where a kind of member is found."""

    rows: str
    """Relation with lesion_number, lesion_id and patient_id: cheap to join."""
    wide: str
    """The same with every column that a condition may name."""
    view: str
    """What people call it."""
    described_by: tuple[str, ...]
    """Columns of `wide` for `store.similar.Hit`."""
    noun: str


LESIONS = Members(
    "lake_rows.lesion_features",
    "lake_rows.lesion_features",
    "lesion_features",
    ("lesion_id", "patient_id", "study_id", "lesion_type", "long_mm", "short_mm"),
    "lesion",
)
DETECTIONS = Members(
    "(SELECT detection_number AS lesion_number, detection_id AS lesion_id, patient_id FROM lake_rows.detections)",
    "store.numbered_detections",
    "detection_features",
    ("lesion_id", "patient_id", "study_id", "category_name", "long_mm", "short_mm"),
    "detection",
)


def members_of(set_name: str) -> Members:
    """Whose vectors a feature set of this name holds."""
    return DETECTIONS if holds_detections(set_name) else LESIONS
