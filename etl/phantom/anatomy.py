"""The whole body at one height, organ by organ from back to front, before lesions and scanner."""

import numpy as np

from etl.phantom.abdomen import draw_abdomen
from etl.phantom.outline import Scene, draw_outline
from etl.phantom.painting import Canvas, Grid, Image
from etl.phantom.patient import Patient
from etl.phantom.pelvis import draw_deep_muscles, draw_pelvis
from etl.phantom.skeleton import draw_skeleton
from etl.phantom.study import Study
from etl.phantom.texture import blended, tiles
from etl.phantom.thorax import draw_thorax

# The outline follows the patient's warp half as far as the organs do.
_OUTLINE_WARP = 0.5


def body_height(patient: Patient, z_mm: float) -> float:
    """True height in the body: 0 at the neck, 1 at the upper thigh, the same place in every patient."""
    return patient.height(z_mm / patient.trunk_length_mm)


def draw_anatomy(patient: Patient, study: Study, grid: Grid, z_mm: float) -> Scene:
    """The body without lesions, kernel and noise."""
    t = body_height(patient, z_mm)
    cosine, sine = np.float32(np.cos(study.turn)), np.float32(np.sin(study.turn))
    across, down = grid.x_mm - np.float32(study.shift_x_mm), grid.y_mm - np.float32(study.shift_y_mm)
    x = cosine * across[None] + sine * down[:, None]
    y = cosine * down[:, None] - sine * across[None]
    warp_x, warp_y = _warp(patient, across, down, z_mm)
    textures = tiles()
    grain = blended(textures.grain, z_mm, grid.size, study.texture_corner)
    cloud = blended(textures.cloud, z_mm, grid.size, study.texture_corner)
    canvas = Canvas(grid, x + warp_x, y + warp_y, grain, (study.shift_x_mm, study.shift_y_mm))
    half = np.float32(_OUTLINE_WARP)
    scene = draw_outline(canvas, patient, study, z_mm, t, cloud, (x + half * warp_x, y + half * warp_y))
    draw_deep_muscles(scene)
    draw_thorax(scene)
    draw_abdomen(scene)
    draw_pelvis(scene)
    draw_skeleton(scene)
    return scene


def _warp(patient: Patient, across: Image, down: Image, z_mm: float) -> tuple[Image, Image]:
    """The patient's smooth displacement in mm; plane waves, computed by rows and columns."""
    warps = [np.zeros((len(down), len(across)), np.float32) for _ in range(2)]
    for number, wave in enumerate(patient.warp):
        along_x = np.float32(wave.kx) * across
        along_y = np.float32(wave.ky) * down + np.float32(wave.kz * z_mm + wave.phase)
        cosine_x, sine_x = np.cos(along_x)[None], np.sin(along_x)[None]
        product = np.cos(along_y)[:, None] * cosine_x - np.sin(along_y)[:, None] * sine_x
        warps[number % 2] += np.float32(wave.amplitude_mm) * product
    return warps[0], warps[1]
