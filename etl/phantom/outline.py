"""The body's outline at one height: skin, fat, muscle and the cavity, and the scene that organs are drawn into."""

from dataclasses import dataclass

import numpy as np

from etl.phantom.keyframes import along
from etl.phantom.painting import Canvas, Ellipse, Image
from etl.phantom.patient import Patient
from etl.phantom.study import Study
from etl.phantom.tissues import Tissue

_FAT_HU, _MUSCLE_HU, _VISCERAL_FAT_HU = -104.0, 52.0, -102.0
_FINEST_EDGE_MM = 0.6
_BREATH_CENTER, _BREATH_HALF = 0.46, 0.13
# Where the legs part, and where they are apart.
_LEGS_START, _LEGS_APART = 0.915, 0.945


@dataclass(slots=True)
class Scene:
    """One slice being drawn: the canvas, whose body it is, and the outline at this height."""

    canvas: Canvas
    patient: Patient
    study: Study
    z_mm: float
    t: float
    """Canonical height."""
    cloud: Image
    x_body: Image
    y_body: Image
    """Coordinates warped half as much as the organs': skin follows organs only in part."""
    body: Image
    muscle: Image
    cavity: Image | None
    cavity_distance: Image | None
    """Roughly mm to the cavity's wall, positive inside."""
    cavity_y: float
    lung: Image | None = None
    under_diaphragm: Image | None = None

    @property
    def scale(self) -> float:
        """Skeleton scale."""
        return self.patient.skeleton

    @property
    def depth(self) -> float:
        """Depth over width."""
        return self.patient.depth

    @property
    def breath_t(self) -> float:
        """Height of what moves with the diaphragm."""
        swing = float(np.exp(-(((self.t - _BREATH_CENTER) / _BREATH_HALF) ** 2)))
        return self.t + self.study.breath * swing

    @property
    def belly(self) -> float:
        """How far the belly stands out here, mm."""
        profile = along(self.t, (0.4, 0), (0.5, 0.6), (0.62, 1), (0.72, 0.8), (0.82, 0.2), (0.9, 0))
        return self.patient.belly_mm * profile

    def disc_radii(self, heights: Image, radius: Image, t: float, least: float) -> Image:
        """Radii of the discs in which this slice meets spheres of a chain."""
        distance_mm = (heights - np.float32(t)) * np.float32(self.patient.trunk_length_mm)
        radii: Image = np.sqrt(np.maximum(radius**2 - distance_mm**2, np.float32(least)))
        return radii

    def touches(self, heights: Image, reach_mm: Image, t: float) -> Image:
        """Which spheres of a chain this slice meets."""
        met: Image = np.abs(heights - np.float32(t)) * np.float32(self.patient.trunk_length_mm) < reach_mm
        return met


def trunk_half_width(patient: Patient, study: Study, t: float) -> float:
    """Half width of the trunk without its fat, mm; arms at the side leave the shoulders wider."""
    if study.arms_up:
        width = along(
            t, (0, 66), (0.055, 84), (0.085, 118), (0.115, 150), (0.16, 168), (0.2, 170), (0.24, 162), (0.3, 152),
            (0.4, 152), (0.5, 148), (0.6, 136), (0.68, 132), (0.74, 146), (0.8, 160), (0.87, 166), (0.94, 160),
            (1, 150),
        )  # fmt: skip
    else:
        width = along(
            t, (0, 56), (0.055, 60), (0.085, 110), (0.115, 182), (0.16, 190), (0.2, 176), (0.24, 162), (0.3, 152),
            (0.4, 152), (0.5, 148), (0.6, 136), (0.68, 132), (0.74, 146), (0.8, 160), (0.87, 166), (0.94, 160),
            (1, 150),
        )  # fmt: skip
    return width * patient.skeleton


def trunk_half_depth(patient: Patient, t: float) -> float:
    """Half depth of the trunk without its fat, mm."""
    depth = along(
        t, (0, 58), (0.06, 60), (0.1, 68), (0.15, 88), (0.2, 100), (0.3, 110), (0.4, 113), (0.5, 107), (0.6, 97),
        (0.7, 94), (0.78, 104), (0.86, 106), (0.93, 96), (1, 84),
    )  # fmt: skip
    return depth * patient.skeleton * patient.depth


def skin_fat(patient: Patient, study: Study, t: float) -> float:
    """Thickness of the fat under the skin, mm."""
    profile = along(t, (0, 0.35), (0.1, 0.4), (0.2, 0.6), (0.45, 0.75), (0.6, 1.0), (0.75, 1.15), (0.85, 1.2), (1, 0.8))
    return patient.fat_mm * profile * study.fat


def superellipse(
    x: Image, y: Image, half_x: float, half_back: float, half_front: float, power: float,
    center: tuple[float, float] = (0.0, 0.0),
) -> Image:  # fmt: skip
    """Roughly the mm to an outline that is deeper in front than behind (or the other way), positive inside."""
    down = y - np.float32(center[1])
    half_y = np.where(down < 0, np.float32(half_front), np.float32(half_back))
    exponent = np.float32(power)
    u, v = np.abs((x - np.float32(center[0])) / np.float32(half_x)), np.abs(down) / half_y
    radius = (u**exponent + v**exponent) ** (1 / exponent)
    distance: Image = (np.float32(1) - radius) * np.float32(np.sqrt(half_x * min(half_back, half_front)))
    return distance


def edge(distance: Image, spacing_mm: float, softness: float = 1.2) -> Image:
    """A distance to an outline as the part of each pixel inside it."""
    width = np.float32(softness * max(spacing_mm, _FINEST_EDGE_MM))
    covered: Image = np.clip(distance / width + np.float32(0.5), 0, 1)
    return covered


def draw_outline(
    canvas: Canvas, patient: Patient, study: Study, z_mm: float, t: float, cloud: Image, half_warp: tuple[Image, Image]
) -> Scene:
    """Paint skin, fat, muscle and the empty cavity, and set the scene for the organs."""
    scene = Scene(
        canvas=canvas, patient=patient, study=study, z_mm=z_mm, t=t, cloud=cloud,
        x_body=half_warp[0], y_body=half_warp[1], body=np.zeros_like(cloud), muscle=np.zeros_like(cloud),
        cavity=None, cavity_distance=None, cavity_y=0.0,
    )  # fmt: skip
    _draw_skin_and_fat(scene)
    _draw_muscle(scene)
    _draw_cavity(scene)
    return scene


def _center_y(scene: Scene) -> float:
    return along(scene.t, (0, 0), (0.1, 4), (0.3, 0), (1, 0)) * scene.scale


def _squareness(t: float) -> float:
    return along(t, (0, 2.0), (0.1, 2.4), (0.2, 2.7), (0.5, 2.5), (0.7, 2.5), (0.88, 2.4), (1, 2.2))


def _with_legs(scene: Scene, trunk: Image, half_x: float, half_back: float, half_front: float) -> Image:
    """The trunk's outline turning into two legs below the pelvis."""
    apart = along(scene.t, (_LEGS_START, 0), (_LEGS_APART, 1))
    if apart <= 0:
        return trunk
    fat = skin_fat(scene.patient, scene.study, scene.t)
    center_x = 86 * scene.scale + fat * 0.45
    left, right = (
        superellipse(scene.x_body, scene.y_body, half_x, half_back, half_front, 2.1, (side * center_x, 0.0))
        for side in (-1, 1)
    )
    legs = np.maximum(left, right)
    return legs if apart >= 1 else np.maximum(trunk - np.float32(60 * apart), legs)


def _draw_skin_and_fat(scene: Scene) -> None:
    canvas, patient, t = scene.canvas, scene.patient, scene.t
    width, depth = trunk_half_width(patient, scene.study, t), trunk_half_depth(patient, t)
    fat, center_y, scale = skin_fat(patient, scene.study, t), _center_y(scene), scene.scale
    distance = superellipse(
        scene.x_body, scene.y_body, width + fat, depth + fat * 0.9, depth + fat + scene.belly, _squareness(t),
        (0.0, center_y),
    )  # fmt: skip
    leg = 88 * scale + fat * 0.7
    distance = _with_legs(scene, distance, leg, leg, leg - 2 * scale)
    chest = float(np.sin(np.pi * (t - 0.17) / 0.19)) if 0.17 < t < 0.36 else 0.0
    breast = (22 + fat * 0.9) * chest**0.7 * (0.12 if patient.is_male else 0.9) if chest > 0 else 0.0
    breast_y = -(depth + fat * 0.35) + center_y
    if breast > 2.5:
        for side in (-1, 1):
            mound = superellipse(
                scene.x_body,
                scene.y_body,
                breast * 1.35,
                breast * 1.1,
                breast * 1.1,
                2.0,
                (side * 78 * scale, breast_y),
            )
            distance = np.maximum(distance, mound)
    scene.body = edge(distance, canvas.grid.spacing_mm)
    canvas.fill(scene.body, _FAT_HU, Tissue.FAT_UNDER_SKIN, texture=4)
    # Strands between fat lobules, and the skin as a bright line.
    canvas.hu += scene.body * np.clip(scene.cloud - np.float32(1.1), 0, 1) * np.float32(38)
    canvas.hu += scene.body * np.clip(1 - np.abs(distance - np.float32(1.2)) / np.float32(1.3), 0, 1) * np.float32(95)
    if breast > 8 and not patient.is_male:
        for side in (-1, 1):
            gland = Ellipse(
                side * 78 * scale, breast_y - fat * 0.15, breast * 0.62, breast * 0.34,
                harmonics=((3, 0.2, 1.0 + side), (5, 0.25, t * 40), (7, 0.15, 2.0)), softness=4,
            )  # fmt: skip
            canvas.paint(gland, -10, Tissue.BREAST, texture=35)


def _draw_muscle(scene: Scene) -> None:
    canvas, patient, t = scene.canvas, scene.patient, scene.t
    width, depth, scale = trunk_half_width(patient, scene.study, t), trunk_half_depth(patient, t), scene.scale
    distance = superellipse(
        scene.x_body, scene.y_body, width, depth, depth + scene.belly * 0.85, _squareness(t), (0.0, _center_y(scene))
    )
    distance = _with_legs(scene, distance, 82 * scale, 80 * scale, 78 * scale)
    scene.muscle = edge(distance, canvas.grid.spacing_mm) * scene.body
    canvas.fill(scene.muscle, _MUSCLE_HU, Tissue.MUSCLE, texture=5)
    marbling = np.clip((scene.cloud - np.float32(0.7)) * 2, 0, 1) * np.float32(
        -70 * (0.6 + 0.5 * min(1.2, patient.fat_mm / 25))
    )
    canvas.hu += scene.muscle * marbling
    # Fat planes part the muscles of the shoulder girdle, the abdominal wall and the thigh.
    if t < 0.24:
        radius = np.sqrt(canvas.x**2 + (canvas.y * np.float32(1.2)) ** 2)
        turn = np.arctan2(canvas.y, np.abs(canvas.x)) * np.float32(3) + np.float32(t * 9)
        plane = np.abs(np.sin(np.float32(0.085) * radius + np.float32(2.2) * np.sin(turn)))
        canvas.hu += scene.muscle * np.clip(1 - plane * 6, 0, 1) * np.float32(-110)
    elif t < 0.74:
        layer = np.abs(np.sin(np.float32(0.36) * distance + scene.cloud * np.float32(0.35)))
        canvas.hu += scene.muscle * np.clip(1 - layer * 5, 0, 1) * np.float32(-55)
    if t > 0.72:
        strength = along(t, (0.72, 0), (0.78, 1))
        dx, dy = np.abs(canvas.x) - np.float32(88 * scale), canvas.y - np.float32(5)
        radius = np.hypot(dy, dx)
        plane = np.abs(np.sin(np.arctan2(dy, dx) * np.float32(2.5) + np.float32(0.03) * radius + np.float32(t * 11)))
        shade = np.clip(1 - plane * 5, 0, 1) * np.clip((radius - np.float32(26)) / 8, 0, 1)
        canvas.hu += scene.muscle * shade * np.float32(-120 * strength)


def _draw_cavity(scene: Scene) -> None:
    canvas, t = scene.canvas, scene.t
    if not 0.075 < t < 0.93:
        return
    half_x, half_y = scene.patient.cavity_half_axes(t)
    scene.cavity_y = along(t, (0.1, 6), (0.2, -2), (0.5, -2), (0.7, -6), (0.93, -4)) * scene.scale
    power = along(t, (0.1, 2), (0.2, 2.3), (0.5, 2.3), (0.7, 2.2))
    scene.cavity_distance = superellipse(
        canvas.x, canvas.y, half_x, half_y, half_y + scene.belly * 0.8, power, (0.0, scene.cavity_y)
    )
    scene.cavity = edge(scene.cavity_distance, canvas.grid.spacing_mm) * scene.muscle
    fat = Tissue.FAT_MEDIASTINUM if t <= 0.50 else Tissue.FAT_ABDOMEN if t < 0.72 else Tissue.FAT_PELVIS
    canvas.fill(scene.cavity, _VISCERAL_FAT_HU, fat, texture=4)
    canvas.hu += scene.cavity * np.clip(scene.cloud - np.float32(0.4), 0, 2) * np.float32(28)
    if t > 0.45:
        far = (canvas.labels == Tissue.FAT_MEDIASTINUM) & (np.abs(canvas.x) > np.float32(60 * scene.scale))
        canvas.labels[far] = Tissue.FAT_ABDOMEN
