"""Muscles along the spine, the pelvis and its organs, free fluid and small normal nodes."""

import numpy as np

from etl.phantom.keyframes import along, bulge
from etl.phantom.outline import Scene
from etl.phantom.painting import Ellipse
from etl.phantom.tissues import BODY_FAT, Tissue


def draw_deep_muscles(scene: Scene) -> None:
    """Back muscles, psoas and buttocks; drawn before the organs in front of them."""
    canvas, t, scale, patient = scene.canvas, scene.t, scene.scale, scene.patient
    spine_x, spine_y = patient.spine_xy(t)
    if t < 0.84:
        size = along(t, (0, 0.5), (0.1, 0.75), (0.3, 0.7), (0.6, 1.15), (0.72, 1.1), (0.8, 0.5), (0.84, 0))
        size *= patient.muscle * scale
        for side in (-1, 1):
            back = Ellipse(
                spine_x + side * 26 * scale * max(0.8, size), spine_y + 34 * scale, 26 * size, 19 * size, -side * 0.3,
                harmonics=((3, 0.1, float(side)),),
            )  # fmt: skip
            canvas.paint(back, 55, Tissue.MUSCLE, texture=6)
    if 0.54 < t < 0.93:
        radius = along(t, (0.54, 5), (0.6, 13), (0.7, 24), (0.78, 24), (0.88, 19), (0.93, 12))
        radius *= patient.muscle * scale * patient.organs["psoas"].scale
        x = along(t, (0.54, 26), (0.65, 38), (0.72, 50), (0.8, 76), (0.88, 92), (0.93, 88)) * scale
        y = along(t, (0.54, 40), (0.66, 28), (0.74, 8), (0.82, -32), (0.9, -44)) * scale * scene.depth
        for side in (-1, 1):
            center_x = (spine_x if t < 0.72 else 0.0) + side * x
            psoas = Ellipse(center_x, y, radius * 0.95, radius * 1.1, harmonics=((3, 0.08, 1.0),))
            canvas.paint(psoas, 56, Tissue.MUSCLE, texture=5)
    if 0.73 < t < 0.92:
        size = float(np.sin(np.pi * np.clip((t - 0.72) / 0.22, 0, 1))) ** 0.5 * scale
        for side in (-1, 1):
            large = Ellipse(
                side * 84 * scale, 74 * scale * scene.depth, 60 * size, 30 * size * patient.muscle, -side * 0.55,
                harmonics=((3, 0.1, 0.6 * side),),
            )  # fmt: skip
            outer = Ellipse(side * 118 * scale, 28 * scale * scene.depth, 24 * size, 44 * size, side * 0.25)
            canvas.paint(large, 50, Tissue.MUSCLE, texture=9)
            canvas.paint(outer, 52, Tissue.MUSCLE, texture=7)


def draw_pelvis(scene: Scene) -> None:
    """Iliac vessels, bladder, prostate or uterus, rectum, then fluid and nodes."""
    if 0.70 < scene.t < 0.95:
        _draw_iliac_vessels(scene)
        _draw_bladder(scene)
        _draw_pelvic_organ(scene)
        _draw_rectum(scene)
    if scene.patient.ascites and 0.5 < scene.t < 0.9:
        half_x = scene.patient.cavity_half_axes(scene.t)[0]
        fat = np.isin(scene.canvas.labels, (Tissue.FAT_ABDOMEN, Tissue.FAT_PELVIS))
        scene.canvas.hu[fat & (np.abs(scene.canvas.x) > np.float32(0.62 * half_x))] = 8
    _draw_nodes(scene)


def _draw_iliac_vessels(scene: Scene) -> None:
    canvas, t, scale, hu = scene.canvas, scene.t, scene.scale, scene.study.hu
    x = along(t, (0.7, 14), (0.76, 38), (0.84, 64), (0.9, 78), (1, 84)) * scale
    if t < 0.72:
        y = scene.patient.spine_xy(t)[1] - 24 * scale
    else:
        y = along(t, (0.72, 8), (0.8, -4), (0.86, -38), (0.92, -58), (1, -62)) * scale * scene.depth
    for side in (-1, 1):
        canvas.paint(Ellipse(side * x, y, 6 * scale, 6 * scale), hu.aorta, Tissue.VESSEL)
        vein = Ellipse(side * (x - 7 * scale), y + 11 * scale, 7 * scale, 6.5 * scale)
        canvas.paint(vein, hu.vein * 0.8, Tissue.VESSEL)


def _draw_bladder(scene: Scene) -> None:
    bladder, study = scene.patient.organs["bladder"], scene.study
    fullness = bladder.scale * study.bladder
    size = bulge(scene.t, 0.862 + bladder.dt, 0.045 * fullness)
    radius = 38 * scene.scale * size * fullness
    inside = Ellipse(bladder.dx, -24 * scene.scale * scene.depth, radius * 1.15, radius, power=2.3)
    if size <= 0:
        return
    scene.canvas.paint(inside.shrunk(-2.5), 45, Tissue.BLADDER, clip=scene.cavity)
    # Contrast sinks to the bottom of the bladder.
    urine = study.hu.urine if scene.t > 0.862 or study.hu.urine < 50 else 60
    scene.canvas.paint(inside, urine, Tissue.BLADDER, clip=scene.cavity)


def _draw_pelvic_organ(scene: Scene) -> None:
    organ = scene.patient.organs["pelvic_organ"]
    center_t, half, y, radius = (0.90, 0.028, 8, 24) if scene.patient.is_male else (0.842, 0.042, 14, 34)
    unit = bulge(scene.t, center_t + organ.dt, half) * scene.scale * organ.scale * radius
    shape = Ellipse(
        organ.dx, y * scene.scale * scene.depth, unit * 1.15, unit * 0.85, harmonics=organ.harmonics, softness=1.6
    )
    scene.canvas.paint(shape, scene.study.hu.soft * 0.85 + 12, Tissue.PELVIC_ORGAN, texture=7)


def _draw_rectum(scene: Scene) -> None:
    if not 0.82 < scene.t < 0.925:
        return
    rectum = scene.patient.organs["rectum"]
    radius = 15 * scene.scale * rectum.scale
    lumen = Ellipse(rectum.dx * 0.5, 44 * scene.scale * scene.depth, radius, radius * 0.9)
    scene.canvas.paint(lumen.shrunk(-3), scene.study.hu.soft * 0.7 + 5, Tissue.BOWEL)
    scene.canvas.paint(lumen, -900 if scene.study.gas > 0.6 else 20, None, texture=40)


def _draw_nodes(scene: Scene) -> None:
    nodes = scene.patient.nodes
    met = nodes[scene.touches(nodes[:, 2], nodes[:, 3], scene.t)]
    radii = scene.disc_radii(met[:, 2], met[:, 3], scene.t, 0.0)
    fat = np.isin(scene.canvas.labels, BODY_FAT).astype(np.float32)
    y = met[:, 1] * scene.scale * scene.depth
    scene.canvas.fill_discs(met[:, 0] * scene.scale, y, radii, scene.study.hu.soft * 0.7 + 8, None, clip=fat)
