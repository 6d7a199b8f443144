"""Bones: spine, ribs, shoulder girdle, pelvis, hips, thighs, arms; and the scanner's table."""

import numpy as np
from numpy.typing import NDArray

from etl.phantom.keyframes import along
from etl.phantom.outline import Scene, skin_fat, trunk_half_depth, trunk_half_width
from etl.phantom.painting import Ellipse
from etl.phantom.tissues import Tissue

_RIB_RADIUS_MM = 6.0
_CARTILAGE_FROM = 0.86


def _vertebra_phases() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many vertebrae lie above each height: they grow from the neck to the loins."""
    heights = np.linspace(0, 1, 401)
    period = np.interp(heights, [0, 0.1, 0.4, 0.7, 1], [0.021, 0.023, 0.029, 0.040, 0.042])
    counted = np.concatenate([[0.0], np.cumsum((1 / period)[1:] * np.diff(heights))])
    return heights, counted


_HEIGHTS, _VERTEBRAE = _vertebra_phases()


def draw_skeleton(scene: Scene) -> None:
    """All bones this slice meets, then the table."""
    t = scene.t
    if t < 0.86:
        _draw_spine(scene)
    if 0.10 < t < 0.62:
        _draw_ribs(scene)
    _draw_shoulders(scene)
    if 0.695 < t < 0.875:
        _draw_iliac_wings(scene)
    if 0.825 < t < 0.955:
        _draw_hips(scene)
    if t > 0.955:
        for side in (-1, 1):
            _bone(
                scene,
                Ellipse(side * 98 * scene.scale, 4 * scene.scale, 14.5 * scene.scale, 14.5 * scene.scale),
                5,
                -40,
                1100,
            )
    if not scene.study.arms_up and t > 0.15:
        _draw_arms(scene)
    _draw_table(scene)


def _bone(
    scene: Scene, shape: Ellipse, wall_mm: float = 2.0, marrow: float = 190.0, cortex: float = 620.0,
    texture: float = 30.0, tissue: Tissue = Tissue.BONE,
) -> None:  # fmt: skip
    """A cortical shell around trabecular marrow, as dense as the patient's bones are."""
    density = scene.patient.bone_density
    scene.canvas.paint(shape, cortex * density**0.5, tissue)
    if min(shape.half_x, shape.half_y) > wall_mm + 1:
        inner = shape.shrunk(wall_mm)
        scene.canvas.paint(inner, marrow * density, tissue, texture=texture)


def _draw_spine(scene: Scene) -> None:
    canvas, t, scale = scene.canvas, scene.t, scene.scale
    x, y = scene.patient.spine_xy(t)
    if t >= 0.735:
        _draw_sacrum(scene, y)
        return
    count = scene.patient.vertebra_phase + float(np.interp(t, _HEIGHTS, _VERTEBRAE))
    within = count - np.floor(count)
    disc = abs(within - 0.5) > 0.40
    radius = along(t, (0, 10), (0.1, 12), (0.2, 14.5), (0.4, 17.5), (0.6, 22), (0.71, 25), (0.74, 30)) * scale
    body = Ellipse(
        x, y - 3 * scale, radius * 1.15, radius * 0.92, harmonics=((2, 0.04, 3.14), (3, 0.05, 1.57)), power=2.2
    )
    if disc:
        _bone(scene, body, 1.6, 85, 110, 8)
    else:
        _bone(scene, body, 1.6, 185, 520, 34)
    canvas.paint(Ellipse(x, y + radius + 5 * scale, 9.5 * scale, 8.5 * scale), 28, None)
    arch = 0.5 + 0.5 * float(np.cos(2 * np.pi * (within - 0.15)))
    if arch > 0.25:
        for side in (-1, 1):
            _bone(
                scene, Ellipse(x + side * 11 * scale, y + radius + 3 * scale, 3.6 * scale, 8 * scale, side * 0.2), 1.3
            )
            _bone(
                scene, Ellipse(x + side * 8 * scale, y + radius + 15 * scale, 9 * scale, 3.2 * scale, side * 0.75), 1.3
            )
            if t > 0.1 and arch > 0.6:
                reach, lean = x + side * (radius * 0.7 + 16 * scale), 0.25 if t > 0.55 else 0.55
                _bone(scene, Ellipse(reach, y + radius + 4 * scale, 13 * scale, 4 * scale, side * lean), 1.3)
    if arch < 0.85:
        spine = Ellipse(x, y + radius + 26 * scale, 3.4 * scale, 11 * scale, harmonics=((3, 0.1, 1.57),))
        _bone(scene, spine, 1.2)


def _draw_sacrum(scene: Scene, y: float) -> None:
    scale = scene.scale
    size = along(scene.t, (0.73, 0.75), (0.76, 1.0), (0.80, 0.75), (0.85, 0.25))
    body = Ellipse(
        0, y, 54 * scale * size, 22 * scale * size + 4, harmonics=((2, 0.06, 3.14), (4, 0.1, 0.5)), power=2.3
    )
    _bone(scene, body, 2, 150, 430, 35)
    for side in (-1, 1):
        hole = Ellipse(side * 18 * scale * size, y + 6 * scale * size, 4 * scale, 4 * scale)
        scene.canvas.paint(hole, 10, None)
    scene.canvas.paint(Ellipse(0, y + 12 * scale * size, 7 * scale * size, 5 * scale * size), 25, None)


def _draw_ribs(scene: Scene) -> None:
    scale, patient = scene.scale, scene.patient
    density = patient.bone_density
    reach = np.full(1, _RIB_RADIUS_MM * 1.08 * scale, np.float32)
    for rib in patient.ribs:
        met = scene.touches(rib.height, reach, scene.t)
        if not met.any():
            continue
        part, angle = rib.part[met], rib.angle[met]
        half_x, half_y = patient.cavity_half_axes(float(rib.height[met].mean()))
        x = rib.side * np.cos(angle) * (half_x + 5 * scale)
        y = -2 * scale + np.sin(angle) * (half_y + 5 * scale)
        # The head of the rib runs to its vertebra instead of the chest wall.
        neck = part < 0.10
        joint = 18 * scale + part / 0.10 * (np.cos(np.pi * 0.4) * half_x - 18 * scale)
        x = np.where(neck, rib.side * joint, x).astype(np.float32)
        radius = np.full_like(rib.height[met], _RIB_RADIUS_MM * scale)
        radii = scene.disc_radii(rib.height[met], radius, scene.t, 0.5) * np.float32(0.86)
        cartilage = part > _CARTILAGE_FROM
        for chosen, shell, core in ((~cartilage, 560 * density**0.5, 170 * density), (cartilage, 110, 95)):
            if chosen.any():
                scene.canvas.fill_discs(x[chosen], y[chosen], radii[chosen], shell, Tissue.BONE)
                inner = np.maximum(radii[chosen] - np.float32(1.7), 0)
                scene.canvas.fill_discs(x[chosen], y[chosen], inner, core, Tissue.BONE)


def _draw_shoulders(scene: Scene) -> None:
    t, scale, study = scene.t, scene.scale, scene.study
    if 0.175 < t < 0.43:
        half_y = scene.patient.cavity_half_axes(t)[1]
        size = along(t, (0.175, 1.5), (0.23, 1.25), (0.26, 0.85), (0.4, 0.9), (0.43, 0.4)) * scale
        plate = Ellipse(
            scene.patient.organs["sternum"].dx * 0.3, -half_y - 4 * scale - 2, 17 * size, 6 * scale, power=2.4
        )
        _bone(scene, plate, 1.6, 140, 400)
    if 0.105 < t < 0.165:
        for side in (-1, 1):
            for step in range(5):
                if abs(t - (0.152 - 0.010 * step)) * scene.patient.trunk_length_mm < 9:
                    y = (-48 + 9 * step if step < 3 else -30) * scale * scene.depth
                    _bone(scene, Ellipse(side * (30 + 28 * step) * scale, y, 16 * scale, 5.5 * scale, side * 0.25), 1.6)
    if 0.10 < t < 0.31:
        _draw_scapulae(scene)
    if not study.arms_up and 0.098 < t < 0.165:
        size = float(np.sqrt(max(0.0, 1 - ((t - 0.125) / 0.04) ** 2))) * 25 * scale
        for side in (-1, 1):
            _bone(scene, Ellipse(side * 163 * scale, 14 * scale, size, size), 2.5, 170)
    if study.arms_up and t < 0.115:
        x = (112 + (0.115 - t) * 170) * scale
        edge = trunk_half_width(scene.patient, study, t) + skin_fat(scene.patient, study, t)
        for side in (-1, 1):
            if x + 16 * scale < edge:
                _bone(scene, Ellipse(side * x, 4 * scale, 14 * scale, 15 * scale), 4, 120, 800)


def _draw_scapulae(scene: Scene) -> None:
    scale, density = scene.scale, scene.patient.bone_density
    size = along(scene.t, (0.10, 0.5), (0.15, 1), (0.25, 0.9), (0.31, 0.3))
    up = scene.study.arms_up
    x0, y0 = (100 if up else 92) * scale, 62 * scale * scene.depth
    for side in (-1, 1):
        for step in range(7):
            u = step / 6 - 0.5
            x = side * (x0 + u * 66 * scale * size + (14 * scale if up else 0))
            y = y0 - u * 40 * scale * size * (1.25 if up else 1) + 3 * np.sin(step)
            outer = Ellipse(x, y, 7.5 * scale, (4.6 if step % 5 else 6.5) * scale, -side * 0.55)
            scene.canvas.paint(outer, 480 * density**0.5, Tissue.BONE)
            scene.canvas.paint(Ellipse(x, y, 5.6 * scale, 2.4 * scale, -side * 0.55), 210 * density, None)
        if scene.t < 0.165:
            _bone(scene, Ellipse(side * 132 * scale, 22 * scale, 11 * scale, 15 * scale, side * 0.4))


def _draw_iliac_wings(scene: Scene) -> None:
    """A curved strip of discs whose opening follows the height."""
    scale, density = scene.scale, scene.patient.bone_density
    t = scene.t + scene.patient.organs["ilium"].dt * 0.5
    opening = along(
        t, (0.695, 0.10), (0.715, 0.65), (0.74, 0.95), (0.78, 1.0), (0.82, 0.8), (0.85, 0.45), (0.875, 0.25)
    )
    thickness = along(t, (0.695, 5), (0.74, 6.5), (0.8, 9), (0.85, 14))
    u = np.linspace(0, 1, 26)
    back = np.array(
        [
            along(t, (0.7, 88), (0.73, 62), (0.78, 52), (0.84, 74)),
            along(t, (0.7, 36), (0.74, 62), (0.78, 64), (0.84, 36)),
        ]
    )
    bend = np.array([along(t, (0.7, 112), (0.78, 110), (0.85, 98)), along(t, (0.7, 20), (0.78, 26), (0.85, 14))])
    front = np.array(
        [
            along(t, (0.7, 120), (0.74, 132), (0.78, 126), (0.85, 98)),
            along(t, (0.7, 0), (0.74, -34), (0.78, -40), (0.85, -24)),
        ]
    )
    middle = (back + front) / 2
    back, front = (middle + (end - middle) * max(0.3, opening) for end in (back, front))
    path = (1 - u)[:, None] ** 2 * back + 2 * (u * (1 - u))[:, None] * bend + u[:, None] ** 2 * front
    flare = 0.5 * np.abs(u - 0.5) * 2 if t < 0.82 else 0.0
    radii = (thickness * scale * (0.75 + flare + 0.25 * np.sin(u * 9))).astype(np.float32)
    y = (path[:, 1] * scale * scene.depth).astype(np.float32)
    for side in (-1, 1):
        x = (side * path[:, 0] * scale).astype(np.float32)
        scene.canvas.fill_discs(x, y, radii, 580 * density**0.5, Tissue.BONE)
        scene.canvas.fill_discs(x, y, np.maximum(radii - np.float32(2.1), 0), 190 * density, Tissue.BONE)


def _draw_hips(scene: Scene) -> None:
    t, scale, depth = scene.t, scene.scale, scene.depth
    for side in (-1, 1):
        if t < 0.905:
            socket = float(np.sqrt(max(0.0, 1 - ((t - 0.862) / 0.036) ** 2))) * 33 * scale
            head = float(np.sqrt(max(0.0, 1 - ((t - 0.868) / 0.029) ** 2))) * scale
            _bone(scene, Ellipse(side * 88 * scale, -scale * depth, socket, socket, harmonics=((3, 0.08, side),)), 2.5)
            scene.canvas.paint(Ellipse(side * 92 * scale, 0, 26 * head, 26 * head), 70, None)
            _bone(scene, Ellipse(side * 92 * scale, 0, 23.5 * head, 23.5 * head), 2, 260)
        if 0.868 < t < 0.925:
            size = float(np.sin(np.pi * (t - 0.868) / 0.057)) ** 0.5 * scale
            for step in range(4):
                pubis = Ellipse(
                    side * (12 + 18 * step) * scale, (-52 + 6 * step) * scale * depth, 13 * size, 7.5 * size, side * 0.3
                )
                _bone(scene, pubis, 1.8)
            _bone(scene, Ellipse(side * 56 * scale, 38 * scale * depth, 12 * size, 19 * size, -side * 0.4), 2.2)
        if t > 0.872:
            size = along(t, (0.872, 0.5), (0.89, 1), (0.93, 0.9), (0.955, 0.75)) * scale
            x = side * along(t, (0.872, 128), (0.9, 118), (0.955, 100)) * scale
            _bone(scene, Ellipse(x, 10 * scale * depth, 19 * size, 21 * size), 3, 130)
            if 0.88 < t < 0.905:
                _bone(scene, Ellipse(side * 106 * scale, 6 * scale * depth, 24 * scale, 10 * scale, side * 0.35))


def _draw_arms(scene: Scene) -> None:
    canvas, t, scale = scene.canvas, scene.t, scene.scale
    fat = skin_fat(scene.patient, scene.study, t)
    gap = 46 * scale + abs(6 * float(np.sin(3 * t)))
    x = trunk_half_width(scene.patient, scene.study, t) + fat + gap
    radius = along(t, (0.15, 46), (0.3, 42), (0.6, 36), (1, 28)) * scale + fat * 0.3
    for side in (-1, 1):
        center = side * x, 18 * scale
        canvas.paint(Ellipse(*center, radius, radius * 1.08), -95, Tissue.ARM)
        inner = radius - 3 - fat * 0.25
        canvas.paint(Ellipse(*center, inner, inner * 1.05), 54, Tissue.ARM, texture=6)
        if t < 0.45:
            _bone(scene, Ellipse(*center, 11 * scale, 11 * scale), 4, 20, 950, tissue=Tissue.ARM)
            continue
        for step in (-1, 1):
            forearm = Ellipse(center[0] + step * 10 * scale, center[1] + step * 4, 6 * scale, 7 * scale)
            _bone(scene, forearm, 2.6, 40, 900, tissue=Tissue.ARM)


def _draw_table(scene: Scene) -> None:
    """A thin curved shell under the back; it does not move with the patient's warp."""
    canvas = scene.canvas
    back = trunk_half_depth(scene.patient, scene.t) + skin_fat(scene.patient, scene.study, scene.t) * 0.9 + 8
    distance = np.abs((scene.y_body - np.float32(back + 6)) + scene.x_body**2 * np.float32(1 / 1400))
    shell = np.clip(2 - distance / np.float32(1.2), 0, 1) * (canvas.labels == Tissue.AIR) * (np.abs(scene.x_body) < 230)
    canvas.hu += shell * np.float32(640)
