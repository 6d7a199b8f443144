"""Neck and chest: airways, lungs, mediastinal vessels, heart."""

import numpy as np

from etl.phantom.keyframes import along, bulge
from etl.phantom.outline import Scene, edge, superellipse
from etl.phantom.painting import Ellipse
from etl.phantom.tissues import Tissue

_LUNG_HU, _AIR_HU = -868.0, -990.0


def draw_thorax(scene: Scene) -> None:
    """Everything from the neck to the diaphragm, back to front."""
    if 0.108 < scene.t < 0.56 and scene.cavity is not None:
        _draw_lungs(scene)
    if 0.075 < scene.t < 0.56:
        _draw_oesophagus(scene)
    if scene.t < 0.24:
        _draw_neck(scene)
    _draw_airways(scene)
    if 0.2 < scene.t < 0.50:
        _draw_great_vessels(scene)
        _draw_heart(scene)


def _draw_lungs(scene: Scene) -> None:
    """The rib cage less the mediastinum less a dome on each side: the dome makes liver and recess by itself."""
    canvas, t, scale, patient = scene.canvas, scene.t, scene.scale, scene.patient
    if scene.cavity is None or scene.cavity_distance is None:
        return
    half_x, half_y = patient.cavity_half_axes(t)
    apex = along(t, (0.108, 0.0), (0.125, 0.45), (0.16, 0.82), (0.22, 0.97), (0.3, 1))
    middle = along(t, (0.1, 20), (0.14, 27), (0.2, 36), (0.26, 38), (0.32, 40), (0.4, 40), (0.5, 34), (0.56, 30))
    middle *= scale * (0.8 + 0.2 * patient.visceral_fat**0.5)
    mediastinum = superellipse(canvas.x, canvas.y, middle, half_y * 0.78, half_y * 0.95, 2.0, (0.0, scene.cavity_y))
    spacing = canvas.grid.spacing_mm
    lungs = np.zeros_like(canvas.hu)
    for side in (-1, 1):
        center_x = side * (half_x * 0.55 + 8 * scale * (1 - apex))
        reach = max(apex, 0.05) * half_y
        one = superellipse(
            canvas.x,
            canvas.y,
            half_x * 0.53 * max(apex, 0.05) + 10 * apex,
            reach,
            reach,
            2.35,
            (center_x, scene.cavity_y),
        )
        one = np.minimum(one, scene.cavity_distance - np.float32(2.0))
        one = np.minimum(one, np.float32(side) * canvas.x - np.float32(middle * 0.35))
        one = np.minimum(one, -mediastinum)
        peak = (0.425 if side < 0 else 0.447) + patient.organs["liver"].dt * 0.6
        across = (canvas.x - np.float32(side * 62 * scale)) / np.float32(75 * scale)
        back = (canvas.y + np.float32(22 * scale)) / np.float32(80 * scale * scene.depth)
        lean = np.where(canvas.y > 0, np.float32(1.25), np.float32(0.7))
        dome = np.float32(peak) + np.float32(0.095) * across**2 + np.float32(0.075) * back**2 * lean
        one = np.minimum(one, (dome - np.float32(scene.breath_t)) * np.float32(patient.trunk_length_mm * 0.55))
        lungs = np.maximum(lungs, edge(one, spacing))
    lungs *= scene.cavity
    scene.lung = lungs
    canvas.fill(lungs, _LUNG_HU, Tissue.LUNG)
    canvas.hu += lungs * ((canvas.y + np.float32(20)) * np.float32(0.38))
    canvas.hu += lungs * (canvas.grain * np.float32(14 + patient.emphysema * 0.4))
    canvas.hu += lungs * scene.cloud * np.float32(9 + patient.emphysema)
    _draw_lung_vessels(scene)
    _draw_effusion(scene, half_y)


def _draw_lung_vessels(scene: Scene) -> None:
    vessels = scene.patient.lung_vessels
    met = vessels[scene.touches(vessels[:, 2], np.maximum(vessels[:, 3], 1.5), scene.breath_t)]
    radii = scene.disc_radii(met[:, 2], met[:, 3], scene.breath_t, 0.45)
    hu = 0.6 * (40 if scene.study.phase == "none" else 110)
    scene.canvas.fill_discs(
        met[:, 0] * scene.scale, met[:, 1] * scene.scale * scene.depth, radii, hu, None, clip=scene.lung
    )


def _draw_effusion(scene: Scene, half_y: float) -> None:
    canvas = scene.canvas
    if scene.lung is None:
        return
    for side, amount in zip((-1, 1), scene.patient.effusion, strict=True):
        if amount > 0:
            level = half_y * 0.95 - amount * 900 * max(0.0, scene.breath_t - 0.36) / 0.1
            pool = edge(canvas.y - np.float32(level), canvas.grid.spacing_mm) * scene.lung * (canvas.x * side > 0)
            canvas.fill(pool, 8, None)


def _draw_oesophagus(scene: Scene) -> None:
    x, y = scene.patient.spine_xy(scene.t)
    scale = scene.scale
    tube = Ellipse(x + 5 * scale, y - 25 * scale, 8.5 * scale, 6 * scale)
    scene.canvas.paint(tube, scene.study.hu.soft * 0.72 + 12, Tissue.OESOPHAGUS, texture=5)
    scene.canvas.paint(Ellipse(tube.x, tube.y, 2.2, 1.6), -500, None)


def _draw_neck(scene: Scene) -> None:
    canvas, t, scale, hu = scene.canvas, scene.t, scene.scale, scene.study.hu
    spine_y = scene.patient.spine_xy(t)[1]
    thyroid = t + scene.patient.organs["thyroid"].dt
    if 0.045 < thyroid < 0.105:
        size = float(np.sin(np.pi * (thyroid - 0.045) / 0.06)) ** 0.5 * scale
        for side in (-1, 1):
            lobe = Ellipse(side * 17 * scale, spine_y - 26 * scale, 9 * size, 13 * size)
            canvas.paint(lobe, 95 + 0.3 * hu.aorta, None, texture=8)
    spread = along(t, (0, 1.0), (0.08, 0.9), (0.14, 0.6), (0.24, 0.45)) * scale
    y = spine_y - 22 * scale if t < 0.1 else along(t, (0.1, -4), (0.15, 2), (0.24, -20)) * scale
    for side in (-1, 1):
        canvas.paint(Ellipse(side * 26 * spread, y, 3.6 * scale, 3.6 * scale), hu.aorta, Tissue.VESSEL)
        vein = Ellipse(side * 35 * spread, y - 7 * scale, (5.5 if side < 0 else 4.5) * scale, 5 * scale)
        canvas.paint(vein, hu.vein * 1.15, Tissue.VESSEL)
        if 0.1 < t < 0.16:
            for step in range(4):
                arm = Ellipse(
                    side * (48 + 16 * step) * scale, (2 - 2 * step) * scale, 11 * scale, 4 * scale, side * 0.2
                )
                canvas.paint(arm, hu.vein, Tissue.VESSEL)
        if t < 0.1:
            front = Ellipse(side * 38 * scale, spine_y - 18 * scale, 7 * scale, 17 * scale, side * 0.35)
            back = Ellipse(side * 26 * scale, spine_y + 25 * scale, 17 * scale, 21 * scale, -side * 0.2)
            canvas.paint(front, 54, Tissue.MUSCLE)
            canvas.paint(back, 54, Tissue.MUSCLE)


def _draw_airways(scene: Scene) -> None:
    canvas, t, scale = scene.canvas, scene.t, scene.scale
    spine_y = scene.patient.spine_xy(t)[1]
    if t < 0.335:
        y = spine_y - along(t, (0, 26), (0.1, 32), (0.2, 40), (0.3, 44)) * scale
        split = max(0.0, (t - 0.296) / 0.039)
        if split == 0.0:
            sag = 1.0 if scene.patient.age_years < 60 else 1.1
            canvas.paint(Ellipse(0, y, 10.3 * scale, 10.3 * scale), 30, None)
            canvas.paint(Ellipse(0, y, 8.7 * scale, 8.9 * scale * sag, power=2.2), _AIR_HU, Tissue.AIRWAY)
            return
        for side in (-1, 1):
            place = side * (9 + 26 * split) * scale, y + 3 * split
            canvas.paint(Ellipse(*place, (8.5 + 5 * split) * scale, 7.0 * scale, side * 0.2), 30, None)
            canvas.paint(Ellipse(*place, (6.8 + 5 * split) * scale, 5.6 * scale, side * 0.2), _AIR_HU, Tissue.AIRWAY)
    elif t < 0.40:
        for side in (-1, 1):
            place = side * (38 + 220 * (t - 0.335)) * scale, spine_y - 38 * scale
            canvas.paint(Ellipse(*place, 6 * scale, 5.4 * scale), 20, None)
            canvas.paint(Ellipse(*place, 4.4 * scale, 4 * scale), _AIR_HU, Tissue.AIRWAY)


def _draw_great_vessels(scene: Scene) -> None:
    canvas, t, scale, hu = scene.canvas, scene.t, scene.scale, scene.study.hu
    aorta = scene.patient.organs["aorta"]
    size, dx, mixed = aorta.scale * scale, aorta.dx * 0.4, (hu.aorta + hu.vein) / 2
    if 0.205 < t < 0.335:
        canvas.paint(Ellipse(-24 * scale + dx, -24 * scale, 9 * scale, 10 * scale), hu.vein * 1.1, Tissue.VESSEL)
    if 0.225 < t < 0.262:
        arch = Ellipse(8 * scale + dx, 2 * scale, 14 * size, 40 * scale, -0.62, softness=1.5)
        canvas.paint(arch, hu.aorta, Tissue.VESSEL)
    if 0.255 < t < 0.345:
        canvas.paint(Ellipse(-10 * scale + dx, -28 * scale, 15.5 * size, 15.5 * size), hu.aorta, Tissue.VESSEL)
    if 0.272 < t < 0.335:
        canvas.paint(Ellipse(15 * scale, -32 * scale, 14 * scale, 14 * scale), mixed, Tissue.VESSEL)
        if t > 0.285:
            canvas.paint(Ellipse(-8 * scale, -4 * scale, 34 * scale, 9.5 * scale, 0.12), mixed, Tissue.VESSEL)
            canvas.paint(Ellipse(34 * scale, 2 * scale, 20 * scale, 9 * scale, 0.55), mixed, Tissue.VESSEL)
    if 0.30 < t < 0.36:
        for side in (-1, 1):
            hilum = Ellipse(
                side * 40 * scale, 4 * scale, 10 * scale, 13 * scale, side * 0.5, harmonics=((3, 0.2, t * 60),)
            )
            canvas.paint(hilum, mixed * 0.95, Tissue.HILUM)


def _draw_heart(scene: Scene) -> None:
    canvas, scale, hu = scene.canvas, scene.scale, scene.study.hu
    heart = scene.patient.organs["heart"]
    center_t = 0.405 + heart.dt
    size = bulge(scene.t, center_t, 0.082 * heart.scale)
    if size <= 0:
        return
    x, y = 20 * scale + heart.dx, -26 * scale * scene.depth + heart.dy * 0.5
    unit = heart.scale * (1 + scene.study.heart) * scale * size
    canvas.paint(Ellipse(x, y, 67 * unit, 52 * unit, 0.45, softness=2), -95, None)
    muscle = Ellipse(x, y, 62 * unit, 47 * unit, 0.45, harmonics=((3, 0.04, 1.0),), softness=1.6)
    canvas.paint(muscle, hu.soft * 0.9 + 15, Tissue.HEART, texture=4)
    if size <= 0.35:
        return
    left, right = hu.aorta * 0.95, hu.vein
    canvas.paint(
        Ellipse(x + 24 * unit, y + 10 * unit, 25 * unit, 19 * unit, 0.6, softness=3), left, Tissue.HEART, texture=3
    )
    middle = Ellipse(x + 2 * unit, y - 22 * unit, 32 * unit, 17 * unit, 0.35, softness=3)
    canvas.paint(middle, (left + right) / 2, Tissue.HEART)
    canvas.paint(Ellipse(x - 38 * unit, y - 4 * unit, 18 * unit, 24 * unit, softness=3), right, Tissue.HEART)
    if scene.t < center_t:
        canvas.paint(Ellipse(x - 12 * unit, y + 26 * unit, 28 * unit, 15 * unit, softness=3), left, Tissue.HEART)
