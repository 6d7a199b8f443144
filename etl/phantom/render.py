"""One slice of one series, drawn from nothing but its arguments: the same bytes in any order and any process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.phantom.anatomy import draw_anatomy
from etl.phantom.lesions import LesionState, draw_lesion
from etl.phantom.painting import Image
from etl.phantom.patient import Patient
from etl.phantom.scanner import Series, scan
from etl.phantom.study import Study
from etl.phantom.tissues import Tissue


@dataclass(frozen=True, slots=True)
class RenderedSlice:
    """One finished slice and what is true of it."""

    hu: NDArray[np.int16]
    """(rows, columns), front of the body first."""
    labels: NDArray[np.uint8]
    """`Tissue` of each pixel, lesions not marked."""
    lesion_masks: dict[int, Image]
    """Lesion to the part of each pixel it fills, for the lesions this slice meets."""
    body_box_xyxy_px: tuple[float, float, float, float]
    """Zero-based extent of the trunk, arms and table left out; empty slices give the whole image."""


def render_slice(
    patient: Patient, study: Study, series: Series, z_mm: float, lesions: Sequence[LesionState]
) -> RenderedSlice:
    """Draw a slice `z_mm` below the neck."""
    scene = draw_anatomy(patient, study, series.grid(study), z_mm)
    masks = {}
    for state in lesions:
        mask = draw_lesion(scene, state)
        if mask is not None:
            masks[state.lesion.identifier] = mask
    canvas = scene.canvas
    hu = scan(canvas.hu, canvas.labels > 0, patient, study, series, z_mm)
    return RenderedSlice(hu, canvas.labels, masks, _body_box(canvas.labels))


def _body_box(labels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    body = (labels > 0) & (labels != Tissue.ARM)
    rows, columns = np.nonzero(body.any(axis=1))[0], np.nonzero(body.any(axis=0))[0]
    if rows.size == 0:
        return 0.0, 0.0, float(labels.shape[1] - 1), float(labels.shape[0] - 1)
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
