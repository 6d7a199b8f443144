"""What runs through the body as tubes: vessels, bowel, colon and ribs, as chains of points.

Chains are arrays of rows (x mm, y mm, height t, radius mm). A slice draws the disc in which each point's sphere meets
it, so a tube needs no mesh.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Chain = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tube:
    """A loop of bowel and what is in it."""

    chain: Chain
    content: str
    """fluid, contrast, gas or collapsed."""
    content_hu: float


@dataclass(frozen=True, slots=True)
class Rib:
    """One rib as an arc from the spine (0) to the sternum (1)."""

    side: int
    angle: NDArray[np.float32]
    height: NDArray[np.float32]
    part: NDArray[np.float32]


def make_vessels(rng: np.random.Generator, where: str) -> Chain:
    """The vessels of lung, liver or mesentery."""
    makers: dict[str, Callable[[np.random.Generator], list[NDArray[np.float64]]]] = {
        "lung": _lung_tree,
        "liver": _liver_tree,
        "mesentery": _mesentery,
    }
    return np.concatenate(makers[where](rng)).astype(np.float32)


def make_nodes(rng: np.random.Generator) -> Chain:
    """Small normal lymph nodes, which a detector must learn to leave alone."""
    count = 46
    columns = (
        rng.normal(size=count) * 34,
        rng.uniform(-40, 55, count),
        rng.uniform(0.13, 0.92, count),
        rng.uniform(1.8, 4.2, count),
    )
    return np.column_stack(columns).astype(np.float32)


def make_bowel(rng: np.random.Generator) -> tuple[Tube, ...]:
    """Seven loops of small bowel: random walks that turn back at the walls of the abdomen."""
    limits = np.array([(-78, 78), (-66, 12), (0.565, 0.86)])
    tubes = []
    for _ in range(7):
        place = np.array([rng.uniform(-60, 60), rng.uniform(-55, 0), rng.uniform(0.58, 0.84)])
        direction = rng.normal(size=3)
        radius = rng.uniform(9, 14.5)
        content = str(rng.choice(["fluid", "contrast", "gas", "collapsed"], p=[0.45, 0.25, 0.12, 0.18]))
        points = []
        for step in range(110):
            direction = direction * 0.86 + rng.normal(size=3) * 0.5
            direction /= np.linalg.norm(direction) + 1e-6
            place = place + direction * [5, 5, 0.0045]
            outside = (place < limits[:, 0]) | (place > limits[:, 1])
            direction[outside] *= -1
            place = np.clip(place, limits[:, 0], limits[:, 1])
            points.append([*place, radius * (1 + 0.18 * np.sin(step * 0.55))])
        tubes.append(Tube(np.array(points, np.float32), content, float(rng.uniform(-10, 25))))
    return tuple(tubes)


def make_colon(rng: np.random.Generator, scale: float) -> tuple[Chain, NDArray[np.float32]]:
    """The colon's frame from caecum to rectum, and what fills it along the way (below 0 stool, above gas)."""
    way = np.array(
        [
            (-92, 10, 0.79), (-98, 12, 0.72), (-98, 8, 0.65), (-88, -5, 0.60), (-55, -58, 0.625), (0, -70, 0.645),
            (55, -60, 0.61), (88, -20, 0.545), (104, 18, 0.58), (106, 24, 0.66), (102, 18, 0.73), (84, 0, 0.78),
            (40, -5, 0.81), (10, 8, 0.795), (-12, 22, 0.82), (2, 38, 0.845),
        ]
    )  # fmt: skip
    way = way + rng.normal(size=way.shape) * [7, 7, 0.009]
    along = np.linspace(0, len(way) - 1, 240)
    path = np.stack([np.interp(along, np.arange(len(way)), way[:, axis]) for axis in range(3)], axis=1)
    weights = np.exp(-(np.linspace(-2, 2, 15) ** 2))
    weights /= weights.sum()
    for axis in range(3):
        path[:, axis] = np.convolve(np.pad(path[:, axis], 7, "edge"), weights, "valid")
    folds = 1 + 0.16 * np.sin(along * 9 + rng.uniform(0, 6))
    radius = np.interp(along, [0, 3, 8, 13, 15], [26, 22, 17, 13, 15]) * folds * scale
    content = np.cumsum(rng.normal(size=240) * 0.25)
    return np.column_stack([path, radius]).astype(np.float32), content.astype(np.float32)


def make_ribs(rng: np.random.Generator) -> tuple[Rib, ...]:
    """Twelve pairs that fall from the spine forwards; the lowest two end free."""
    ribs = []
    for number in range(12):
        top, drop = 0.125 + 0.030 * number, 0.075 + 0.012 * min(number, 7)
        for side in (-1, 1):
            part = np.linspace(0, 1 if number < 10 else 0.55, 220)
            angle = np.pi / 2 - part * np.pi * 0.98
            height = top + drop * part**1.15 + rng.normal() * 0.003
            if 2 < number < 10:  # cartilage rises to the sternum again
                height = height - 0.03 * np.clip(part - 0.8, 0, 1) / 0.2
            ribs.append(Rib(side, angle.astype(np.float32), height.astype(np.float32), part.astype(np.float32)))
    return tuple(ribs)


def _bent(
    start: NDArray[np.float64], bend: NDArray[np.float64], end: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    """A quadratic curve from start to end, pulled towards the bend."""
    u = np.linspace(0, 1, steps)[:, None]
    curve: NDArray[np.float64] = (1 - u) ** 2 * start + 2 * u * (1 - u) * bend + u * u * end
    return curve


def _lung_tree(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    parts = []
    for side in (-1, 1):
        branches = []
        hilum = np.array([side * 38, 8, 0.315])
        for _ in range(70):
            direction = rng.normal(size=3)
            direction = direction / np.linalg.norm(direction) * rng.uniform(0.55, 1.0) ** 0.5
            end = np.array([side * (72 + 52 * direction[0]), 5 + 82 * direction[1], 0.33 + 0.19 * direction[2]])
            path = _bent(hilum, (hilum + end) / 2 + rng.normal(size=3) * [14, 14, 0.018], end, 36)
            taper = (1 - np.linspace(0, 1, 36)) ** 1.3
            radius = np.maximum(0.7, rng.uniform(3, 5.5) * taper + 0.6)
            branches.append((path, radius))
            parts.append(np.column_stack([path, radius]))
        for _ in range(190):
            path, radius = branches[rng.integers(len(branches))]
            # Twigs leave far from the hilum too, where the lung would otherwise be empty.
            joint = rng.integers(10, 34)
            u = np.linspace(0, 1, 16)[:, None]
            sway = rng.normal(size=3) * [5, 5, 0.006] * u * (1 - u)
            twig = path[joint] + rng.normal(size=3) * [26, 26, 0.035] * u + sway
            thickness = np.maximum(0.6, radius[joint] * 0.75 * (1 - u[:, 0]) + 0.35)
            parts.append(np.column_stack([twig, thickness]))
    return parts


def _liver_tree(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    parts = []
    for number in range(34):
        root = np.array([-25, -5, 0.545] if number % 2 else [-28, 22, 0.455])
        end = np.array([rng.uniform(-135, 40), rng.uniform(-65, 65), rng.uniform(0.44, 0.63)])
        path = _bent(root, (root + end) / 2 + rng.normal(size=3) * [14, 14, 0.015], end, 40)
        radius = rng.uniform(3, 5) * (1 - np.linspace(0, 1, 40)) + 1.1
        parts.append(np.column_stack([path, radius]))
    return parts


def _mesentery(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    parts = []
    for _ in range(90):
        start = np.array([rng.normal() * 30, rng.uniform(-35, 10), rng.uniform(0.56, 0.74)])
        end = start + rng.normal(size=3) * [38, 28, 0.05]
        path = _bent(start, (start + end) / 2 + rng.normal(size=3) * [12, 12, 0.01], end, 24)
        radius = rng.uniform(1.5, 3.2) * (1 - 0.6 * np.linspace(0, 1, 24))
        parts.append(np.column_stack([path, radius]))
    return parts
