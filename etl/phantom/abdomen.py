"""The abdomen: liver, spleen, stomach, kidneys, pancreas, great vessels, bowel and colon."""

import numpy as np

from etl.phantom.keyframes import along, bulge
from etl.phantom.outline import Scene, edge
from etl.phantom.painting import Ellipse, Image
from etl.phantom.tissues import Tissue

_GAS_HU = -930.0
_KIDNEYS = (("left_kidney", 1, 0.588), ("right_kidney", -1, 0.606))


def draw_abdomen(scene: Scene) -> None:
    """Everything between the diaphragm and the pelvis, back to front."""
    t = scene.t
    if scene.cavity is None:
        return
    if 0.40 < t < 0.58:
        scene.under_diaphragm = _under_diaphragm(scene)
    clip = scene.cavity if scene.under_diaphragm is None else scene.under_diaphragm
    if 0.40 < t < 0.72:
        _draw_liver(scene, clip)
        _draw_spleen(scene, clip)
        _draw_stomach(scene, clip)
    _draw_great_vessels(scene)
    if 0.44 < t < 0.72:
        _draw_kidneys(scene)
        _draw_adrenals_and_pancreas(scene, clip)
    if 0.56 < t < 0.93:
        _draw_mesentery(scene)
    if 0.54 < t < 0.90:
        _draw_bowel(scene)
        _draw_colon(scene)


def _under_diaphragm(scene: Scene) -> Image:
    """Where abdominal organs may be while the lungs still reach down beside them."""
    canvas, t = scene.canvas, scene.t
    cavity = np.zeros_like(canvas.hu) if scene.cavity is None else scene.cavity
    free = cavity if scene.lung is None else np.clip(cavity - scene.lung, 0, 1)
    aside = (np.abs(canvas.x) - np.float32(30 * scene.scale)) / 8
    front = np.clip(np.float32(-4) - canvas.y, -20, 30) / np.float32(12) * np.float32(along(t, (0.43, 0), (0.45, 1)))
    open_below = np.float32(along(t, (0.46, 0), (0.50, 5)))
    allowed: Image = free * np.clip(aside + front + open_below, 0, 1)
    return allowed


def _draw_liver(scene: Scene, clip: Image) -> None:
    canvas, scale, depth, study = scene.canvas, scene.scale, scene.depth, scene.study
    liver = scene.patient.organs["liver"]
    t = scene.breath_t - liver.dt
    size = bulge(t, 0.53, 0.135 * liver.scale**0.5, 0.6) if t > 0.53 else bulge(t, 0.53, 0.118, 0.45)
    if size <= 0 or scene.cavity_distance is None:
        return
    unit = scale * size * liver.scale
    lobes = [
        Ellipse(
            -72 * scale + liver.dx, -4 * scale, 74 * unit, 84 * depth * unit, 0.1 + liver.turn * 0.4,
            liver.harmonics[:3], 2.2, 1.6,
        )
    ]  # fmt: skip
    if t < 0.59:
        left_y = (-46 * scale - scene.belly * 0.3) * depth
        lobes.append(
            Ellipse(
                -8 * scale + liver.dx, left_y, 66 * unit, 36 * unit, -0.16 + liver.turn, liver.harmonics[1:], 2.2, 1.6
            )
        )
    mask = canvas.region(lobes, clip) * np.clip((scene.cavity_distance + 1) / 2, 0, 1)
    canvas.fill(mask, study.hu.liver, Tissue.LIVER, texture=4.5)
    _draw_liver_vessels(scene, mask, t)
    if 0.55 < t < 0.63 and not scene.patient.gallbladder_removed:
        bladder = scene.patient.organs["gallbladder"]
        unit = bulge(t, 0.59, 0.04) * scale * bladder.scale
        sac = Ellipse(-52 * scale + bladder.dx, -42 * scale + bladder.dy - scene.belly * 0.3, 16 * unit, 20 * unit, 0.4)
        canvas.paint(sac, 62, None)
        canvas.paint(sac.shrunk(1.8), 9, Tissue.GALLBLADDER)


def _draw_liver_vessels(scene: Scene, liver: Image, t: float) -> None:
    vessels, study = scene.patient.liver_vessels, scene.study
    met = vessels[scene.touches(vessels[:, 2], np.maximum(vessels[:, 3], 1.2), t)]
    radii = scene.disc_radii(met[:, 2], met[:, 3], t, 0.8)
    mask = scene.canvas.discs(met[:, 0] * scene.scale, met[:, 1] * scene.scale * scene.depth, radii, liver)
    if mask is None:
        return
    share = 0.15 if study.phase == "arterial" else 0.9
    contrast = -9.0 if study.phase == "none" else (study.hu.vein - study.hu.liver) * share
    scene.canvas.hu += mask * np.float32(contrast)


def _draw_spleen(scene: Scene, clip: Image) -> None:
    canvas, scale = scene.canvas, scene.scale
    spleen = scene.patient.organs["spleen"]
    size = bulge(scene.breath_t - spleen.dt, 0.525, 0.068 * spleen.scale, 0.45)
    if size <= 0:
        return
    unit = scale * size * spleen.scale
    outer = Ellipse(
        92 * scale + spleen.dx, 34 * scale * scene.depth + spleen.dy, 32 * unit, 54 * unit, 0.35 + spleen.turn,
        spleen.harmonics, softness=1.4,
    )  # fmt: skip
    hollow = Ellipse(
        66 * scale + spleen.dx, 22 * scale * scene.depth + spleen.dy, 30 * scale, 40 * scale * size, 0.35, softness=1.6
    )
    mask = canvas.region([outer], clip) * (1 - canvas.region([hollow]))
    canvas.fill(mask, scene.study.hu.spleen, Tissue.SPLEEN, texture=4)
    if scene.study.phase == "arterial":
        canvas.hu += mask * np.sin(canvas.x * np.float32(0.25) + scene.cloud * 2) * np.float32(22)


def _draw_stomach(scene: Scene, clip: Image) -> None:
    canvas, scale, study = scene.canvas, scene.scale, scene.study
    stomach = scene.patient.organs["stomach"]
    t = scene.breath_t - stomach.dt
    size = bulge(t, 0.515, 0.078 * stomach.scale)
    if size <= 0:
        return
    x = along(t, (0.43, 62), (0.5, 62), (0.56, 38), (0.6, 10)) * scale + stomach.dx
    y = along(t, (0.43, 10), (0.5, -22), (0.58, -48)) * scale + stomach.dy - scene.belly * 0.3
    unit, filling = scale * size * stomach.scale, 0.6 + 0.4 * study.gas
    outer = Ellipse(x, y, 44 * unit, 36 * unit * filling, -0.5, stomach.harmonics, softness=1.5)
    inner = Ellipse(x, y, 40 * unit, 32 * unit * filling, -0.5, stomach.harmonics, softness=1.5)
    canvas.fill(canvas.region([outer], clip), study.hu.soft * 0.72 + 12, Tissue.STOMACH)
    lumen = canvas.region([inner], clip)
    canvas.fill(lumen, 260 if study.oral_contrast else 18, Tissue.STOMACH, texture=12)
    # Gas rises to the front and leaves a level.
    level = y - 8 * scale + 30 * scale * (0.5 - study.gas)
    canvas.fill(lumen * edge(np.float32(level) - canvas.y, canvas.grid.spacing_mm), _GAS_HU, Tissue.STOMACH)


def _draw_great_vessels(scene: Scene) -> None:
    canvas, t, scale, study, patient = scene.canvas, scene.t, scene.scale, scene.study, scene.patient
    spine_x, spine_y = patient.spine_xy(t)
    if 0.44 < t < 0.76:
        flat = 10 if patient.age_years % 3 else 7
        cava = Ellipse(spine_x - 20 * scale, spine_y - (34 if t < 0.55 else 26) * scale, 12 * scale, flat * scale, 0.2)
        canvas.paint(cava, 60 if study.phase == "arterial" else study.hu.vein * 0.92, Tissue.VESSEL)
    if 0.25 < t < 0.705:
        x = spine_x + along(t, (0.25, 24), (0.4, 18), (0.5, 8), (0.7, 4)) * scale
        y = spine_y - along(t, (0.25, 14), (0.4, 18), (0.5, 27), (0.7, 27)) * scale
        widening = 1 + 0.004 * max(0, patient.age_years - 50)
        radius = along(t, (0.25, 13), (0.45, 11.5), (0.7, 8.5)) * scale * patient.organs["aorta"].scale * widening
        canvas.paint(Ellipse(x, y, radius, radius), study.hu.aorta, Tissue.VESSEL)
        if patient.age_years > 58 and np.sin(t * 180 + patient.index) > 0.3:
            angle = t * 90
            plaque = Ellipse(x + radius * 0.85 * np.cos(angle), y + radius * 0.85 * np.sin(angle), 2.4, 1.6)
            canvas.paint(plaque, 650, None)


def _draw_kidneys(scene: Scene) -> None:
    for name, side, center_t in _KIDNEYS:
        if scene.patient.missing_kidney != name:
            _draw_kidney(scene, name, side, center_t)


def _draw_kidney(scene: Scene, name: str, side: int, center_t: float) -> None:
    canvas, scale, study = scene.canvas, scene.scale, scene.study
    kidney = scene.patient.organs[name]
    t = scene.t - kidney.dt + study.breath * 0.5
    half = 0.073 * kidney.scale
    size = bulge(t, center_t, half, 0.42)
    if size <= 0:
        return
    x = side * (58 + 90 * (t - center_t)) * scale + kidney.dx * 0.6 + scene.patient.spine_xy(scene.t)[0] * 0.5
    y = (34 - 20 * (t - center_t)) * scale * scene.depth + kidney.dy * 0.6
    turn, a, b = side * 0.5, 25 * scale * size * kidney.scale, 30 * scale * size * kidney.scale
    canvas.paint(Ellipse(x, y, a * 1.28, b * 1.28, turn, softness=5), -100, Tissue.FAT_ABDOMEN, clip=scene.cavity)
    body = Ellipse(x, y, a, b, turn, harmonics=((3, 0.04, kidney.harmonics[0][2]),))
    canvas.paint(body, study.hu.kidney, Tissue.KIDNEY, texture=5)
    if study.phase == "arterial":
        for step in range(7):
            angle = step * 0.9 + 1.2 * side
            pyramid = Ellipse(x + 0.62 * a * np.cos(angle), y + 0.62 * b * np.sin(angle), a * 0.2, a * 0.2, softness=3)
            canvas.paint(pyramid, study.hu.kidney_medulla, None)
    openness = 1 - abs(t - center_t) / (half * 0.62)
    if openness > 0:
        sinus = Ellipse(
            x - side * a * 0.42, y - b * 0.12, a * 0.62 * openness**0.5, b * 0.45 * openness**0.5, turn,
            harmonics=((3, 0.25, t * 100), (5, 0.2, 1.0)), softness=3,
        )  # fmt: skip
        canvas.paint(sinus, -75, None)
        if study.phase == "delayed":
            canvas.paint(Ellipse(x - side * a * 0.4, y - b * 0.1, 4, 6), 450, None)
        if openness > 0.55:
            vein = Ellipse(x - side * a * 1.5, y - b * 0.4, a * 0.8, 5 * scale, side * 0.45)
            canvas.paint(vein, study.hu.vein, Tissue.VESSEL)


def _draw_adrenals_and_pancreas(scene: Scene, clip: Image) -> None:
    canvas, t, scale, depth, hu = scene.canvas, scene.t, scene.scale, scene.depth, scene.study.hu
    spine_x, spine_y = scene.patient.spine_xy(t)
    if 0.505 < t < 0.548:
        for side in (-1, 1):
            for lean in (0.5, -0.5):
                x, y = spine_x + side * (34 + 4 * np.cos(lean)) * scale, spine_y - (22 + 10 * lean) * scale
                limb = Ellipse(x, y, 2.6, 13 * scale, side * (0.9 + lean))
                canvas.paint(limb, hu.soft * 0.6 + 10, Tissue.ADRENAL)
    pancreas = scene.patient.organs["pancreas"]
    for step in range(13):
        u = step / 12.0
        x = (-30 + 108 * u) * scale + pancreas.dx
        y = (-14 - 22 * np.sin(np.pi * u * 0.9) + 34 * u**2) * scale * depth + pancreas.dy
        center_t = 0.600 - 0.062 * u**0.7 + pancreas.dt + 0.008 * np.sin(step * 2.2 + scene.patient.index)
        size = bulge(scene.breath_t, center_t, (0.032 if u < 0.2 else 0.018) * pancreas.scale)
        radius = (13 if u < 0.2 else 9.5) * scale * size
        lobule = Ellipse(x, y, radius * 1.1, radius, 0.0, ((4, 0.14, step), (6, 0.13, 2.0 * step)), softness=2.0)
        old = 3 if scene.patient.age_years > 65 else 0
        canvas.paint(lobule, hu.soft * 0.95 + 8 - old, Tissue.PANCREAS, texture=14, clip=clip)
    if 0.53 < t < 0.66:
        back = 10 * (t - 0.53) / 0.1
        artery = Ellipse(4 * scale, spine_y - (44 + back) * scale, 4.6 * scale, 4.6 * scale)
        vein = Ellipse(-10 * scale, spine_y - (46 + back) * scale, 6.2 * scale, 6 * scale)
        canvas.paint(artery, hu.aorta, Tissue.VESSEL)
        canvas.paint(vein, hu.vein, Tissue.VESSEL)


def _draw_mesentery(scene: Scene) -> None:
    vessels = scene.patient.mesenteric_vessels
    met = vessels[scene.touches(vessels[:, 2], np.maximum(vessels[:, 3], 1.2), scene.t)]
    radii = scene.disc_radii(met[:, 2], met[:, 3], scene.t, 0.8)
    y = met[:, 1] * scene.scale * scene.depth - scene.belly * 0.25
    scene.canvas.fill_discs(met[:, 0] * scene.scale, y, radii, scene.study.hu.vein * 0.85, None, clip=scene.cavity)


def _draw_bowel(scene: Scene) -> None:
    canvas, scale, study = scene.canvas, scene.scale, scene.study
    half_x = scene.patient.cavity_half_axes(scene.t)[0]
    t = scene.t - study.bowel_dt
    wall = study.hu.soft * 0.72 + 22
    for tube in scene.patient.bowel:
        met = tube.chain[scene.touches(tube.chain[:, 2], tube.chain[:, 3], t)]
        if len(met) == 0:
            continue
        radii = scene.disc_radii(met[:, 2], met[:, 3], t, 0.0) * np.float32(scale * 0.95)
        x = np.clip(met[:, 0] * scale + study.bowel_x_mm, -half_x * 0.85, half_x * 0.85)
        y = met[:, 1] * scale * scene.depth + study.bowel_y_mm * 0.5 - scene.belly * 0.45
        content = "fluid" if tube.content == "contrast" and not study.oral_contrast else tube.content
        lumen = {
            "fluid": 14 + tube.content_hu,
            "contrast": 230 + 4 * tube.content_hu,
            "gas": -920.0,
            "collapsed": wall - 8,
        }[content]
        canvas.fill_discs(x, y, radii, wall, Tissue.BOWEL, scene.cavity)
        canvas.fill_discs(x, y, np.maximum(radii - np.float32(2.4), 0), lumen, None, scene.cavity)


def _draw_colon(scene: Scene) -> None:
    canvas, scale, chain = scene.canvas, scene.scale, scene.patient.colon
    touched = scene.touches(chain[:, 2], chain[:, 3], scene.t)
    met = chain[touched]
    if len(met) == 0:
        return
    radii = scene.disc_radii(met[:, 2], met[:, 3], scene.t, 0.0) * np.float32(scale)
    x = met[:, 0] * scale
    y = met[:, 1] * scale * scene.depth - scene.belly * 0.4 * (met[:, 1] < -20)
    canvas.fill_discs(x, y, radii, scene.study.hu.soft * 0.72 + 15, Tissue.BOWEL, scene.cavity)
    lumen = canvas.discs(x, y, np.maximum(radii - np.float32(2.2), 0), scene.cavity)
    if lumen is None:
        return
    content = float(scene.patient.colon_content[touched].mean()) + scene.study.gas * 2 - 1
    filling = np.float32(20) + np.clip(scene.cloud * canvas.grain * 70 - 60, -500, 80)
    if content > -0.2:
        level = float(y.mean()) - 2 + 8 * np.sin(content * 3)
        filling = np.where(canvas.y < np.float32(level), np.float32(_GAS_HU), filling)
    canvas.hu += lumen * (filling - canvas.hu)
