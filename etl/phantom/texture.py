"""Textures and noise: tiles filtered once, then cut at random places for every slice.

A tile is periodic, so any cut of any size up to and beyond its own is seamless.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

_TILE_PX = 512
_SEED = 7


@dataclass(frozen=True, slots=True)
class Tiles:
    """Periodic tiles of unit standard deviation."""

    cloud: tuple[NDArray[np.float32], ...]
    """Coarse, for fat strands and stool."""
    grain: tuple[NDArray[np.float32], ...]
    """4 to 8 px, for the texture inside organs."""
    noise: Mapping[str, tuple[NDArray[np.float32], ...]]
    """By reconstruction kernel."""


@functools.cache
def tiles() -> Tiles:
    """All tiles; made once per process, the same in every one."""
    rng = np.random.default_rng(_SEED)
    rows = np.fft.fftfreq(_TILE_PX)[:, None]
    columns = np.fft.rfftfreq(_TILE_PX)[None]
    frequency = np.sqrt(columns**2 + rows**2) + 1e-6

    def make(count: int, response: NDArray[np.float64]) -> tuple[NDArray[np.float32], ...]:
        made = []
        for _ in range(count):
            spectrum = np.fft.rfft2(rng.standard_normal((_TILE_PX, _TILE_PX))) * response
            tile = np.fft.irfft2(spectrum, s=(_TILE_PX, _TILE_PX))
            made.append((tile / tile.std()).astype(np.float32))
        return tuple(made)

    cloud = make(3, 1 / (frequency + 0.01) ** 1.2 * (frequency < 0.3))
    grain = make(3, np.exp(-((frequency / 0.12) ** 2)))
    noise = {
        "soft": make(4, frequency**0.5 * np.exp(-((frequency / 0.16) ** 2))),
        "standard": make(4, frequency**0.5 * np.exp(-((frequency / 0.28) ** 2))),
        "sharp": make(4, frequency * np.exp(-((frequency / 0.42) ** 4))),
    }
    return Tiles(cloud, grain, MappingProxyType(noise))


def cut(tile: NDArray[np.float32], size: int, row: int, column: int) -> NDArray[np.float32]:
    """A square of a periodic tile, from any corner."""
    side = tile.shape[0]
    taken = tile.take(np.arange(row, row + size) % side, axis=0)
    square: NDArray[np.float32] = taken.take(np.arange(column, column + size) % side, axis=1)
    return square


def blended(layers: tuple[NDArray[np.float32], ...], z_mm: float, size: int, corner: int) -> NDArray[np.float32]:
    """A texture that changes smoothly along z: two neighbouring layers mixed, one layer every 14 mm."""
    place = z_mm / 14.0
    lower = int(place)
    share = np.float32(place - lower)
    first = cut(layers[lower % len(layers)], size, corner, corner // 3)
    second = cut(layers[(lower + 1) % len(layers)], size, corner, corner // 3)
    mixed: NDArray[np.float32] = first * (1 - share) + second * share
    return mixed
