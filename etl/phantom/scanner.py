"""One series: field of view, slice interval, kernel and noise; and what they do to a clean image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.phantom.outline import trunk_half_width
from etl.phantom.painting import Grid, Image, make_grid
from etl.phantom.patient import Patient
from etl.phantom.study import Study
from etl.phantom.texture import cut, tiles

_STREAM = 17
_NOISE_STREAM = 29

_KERNELS = ("soft", "standard", "sharp")
_KERNEL_SHARES = (0.42, 0.40, 0.18)
# Noise of a 5 mm slice through an average body, HU.
_NOISE_HU = {"soft": (7.0, 15.0), "standard": (9.0, 20.0), "sharp": (22.0, 55.0)}
_INTERVALS_MM = (1.0, 2.0, 2.5, 5.0)
_INTERVAL_SHARES = (0.20, 0.08, 0.12, 0.60)
_FIELD_MM = (270.0, 500.0)
_ZOOMED_SHARE = 0.05
_SHARPENING = 0.6
_STANDARD_BLUR = 0.5
_OUTSIDE_FIELD_HU = -1024.0
_HIGHEST_HU = 3071.0
_NOISE_IN_AIR = 0.55


@dataclass(frozen=True, slots=True)
class Series:
    """How the study's images were reconstructed."""

    index: int
    image_size: int
    spacing_xy_mm: float
    slice_interval_mm: float
    kernel: str
    """soft, standard or sharp."""
    noise_sigma_hu: float
    center_x_mm: float
    center_y_mm: float

    def grid(self, study: Study) -> Grid:
        """Where the pixels lie in the scanner."""
        center = study.shift_x_mm + self.center_x_mm, study.shift_y_mm + self.center_y_mm
        return make_grid(self.image_size, self.spacing_xy_mm, center)


def make_series(patient: Patient, study: Study, series_index: int, image_size: int) -> Series:
    """The study's series with this number, from 1; the field of view does not depend on the image size."""
    rng = np.random.default_rng([_STREAM, patient.seed, patient.index, study.index, series_index])
    half_width = max(trunk_half_width(patient, study, t) for t in (0.2, 0.8)) + patient.fat_mm
    field = float(np.clip(2 * half_width * rng.uniform(1.02, 1.22), *_FIELD_MM))
    center_x, center_y = float(rng.normal() * 6), float(rng.normal() * 6 + 4)
    if rng.random() < _ZOOMED_SHARE:
        field, center_x = float(rng.uniform(180, 250)), float(rng.choice([-1, 1]) * rng.uniform(40, 80))
    kernel = str(rng.choice(_KERNELS, p=_KERNEL_SHARES))
    interval = float(rng.choice(_INTERVALS_MM, p=_INTERVAL_SHARES))
    dose = (half_width / 185) ** 1.3 * (5 / max(interval, 1.25)) ** 0.3
    sigma = float(rng.uniform(*_NOISE_HU[kernel]) * dose)
    return Series(series_index, image_size, field / image_size, interval, kernel, sigma, center_x, center_y)


def scan(
    clean: Image, body: NDArray[np.bool_], patient: Patient, study: Study, series: Series, z_mm: float
) -> NDArray[np.int16]:
    """The clean image as the scanner shows it: kernel, noise, round field of view, whole HU."""
    rng = np.random.default_rng(
        [_NOISE_STREAM, patient.seed, patient.index, study.index, series.index, round(z_mm * 1000)]
    )
    image = _reconstructed(clean, series.kernel)
    variants = tiles().noise[series.kernel]
    noise = cut(variants[rng.integers(len(variants))], series.image_size, *map(int, rng.integers(0, 512, 2)))
    noise = noise[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    strength = np.where(body, np.float32(1), np.float32(_NOISE_IN_AIR)) * np.float32(series.noise_sigma_hu)
    image = image + noise * strength
    offsets = (np.arange(series.image_size, dtype=np.float32) - (series.image_size - 1) / 2) ** 2
    image[offsets[:, None] + offsets[None] > (series.image_size / 2) ** 2] = _OUTSIDE_FIELD_HU
    return np.rint(np.clip(image, _OUTSIDE_FIELD_HU, _HIGHEST_HU)).astype(np.int16)


def _reconstructed(image: Image, kernel: str) -> Image:
    smooth = _smoothed(image)
    if kernel == "soft":
        return smooth
    if kernel == "sharp":
        return image + np.float32(_SHARPENING) * (image - smooth)
    return image * np.float32(1 - _STANDARD_BLUR) + smooth * np.float32(_STANDARD_BLUR)


def _smoothed(image: Image) -> Image:
    """Binomial weights 1 2 1 along both axes; the outermost rows and columns stay."""
    result = image.copy()
    result[1:-1] = np.float32(0.25) * (image[:-2] + image[2:]) + np.float32(0.5) * image[1:-1]
    rows = result.copy()
    result[:, 1:-1] = np.float32(0.25) * (rows[:, :-2] + rows[:, 2:]) + np.float32(0.5) * rows[:, 1:-1]
    return result
