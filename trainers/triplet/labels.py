"""Type pseudo-labels: what the lesions nobody labelled are, learnt from the seed lesions somebody did.

A support vector machine with a radial kernel over standardised features (the untrained network's multi-scale features
first, the trained network's embeddings in a refinement round), as in the Deep Lesion Graphs paper. Its strength and
width are chosen by cross-validation over folds that never share a patient, and its scores are made probabilities over
the same kind of folds (one sigmoid per type, fitted to scores of lesions that the machine had not seen).

Nothing here is random beyond the seed that mixes the folds, so the same input gives the same labels. Kernels are
computed as matrix products, which at 1,408 features is many times faster than the solver's own. May import: lesionary,
numpy, scikit-learn.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.svm import SVC

from lesionary.anatomy import LESION_TYPES
from lesionary.errors import TrainingError, UsageError

FOLDS = 3
STRENGTHS = (1.0, 10.0, 100.0)
WIDTHS = (0.25, 1.0, 4.0)
"""Of the kernel, as multiples of 1 / features."""

_CHOICE_ROWS = 3000
_BLOCK = 2048
UNKNOWN = -1

Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How types are learnt from seeds."""

    balanced: bool = True
    """Rare types weigh as much as common ones, in the machine and in the choice of its settings."""
    choice_rows: int = _CHOICE_ROWS
    """Strength and width are chosen on at most so many seeds (whole patients); the machine itself learns from all."""


@dataclass(frozen=True, slots=True)
class Labels:
    """A type for every lesion that was asked for, seeds with their own."""

    types: NDArray[np.int64]
    """(n,) place in `LESION_TYPES`; -1 for lesions that were neither seed nor target."""
    probability: NDArray[np.float64]
    """(n,) of that type, 1 for seeds; nan where there is none."""
    classes: NDArray[np.float64]
    """(n, 8) of every type, rows add up to 1; 0 for types no seed has, nan where there is no label."""
    round: int
    """0 for labels from untrained features, 1 and up for refinements."""
    record: dict[str, object]
    """What was chosen and how well it did on patients it had not seen, for a model card."""

    def confident(self, least: float) -> NDArray[np.int64]:
        """The types, -1 where the probability is below `least`: such lesions then take no part in sampling."""
        return np.where(self.probability >= least, self.types, UNKNOWN)

    def rows(self) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64]]:
        """What lands in the lake's labels: places of the labelled lesions, their types' names, their probabilities."""
        labelled = np.flatnonzero(self.types >= 0)
        return labelled, [LESION_TYPES[kind] for kind in self.types[labelled]], self.probability[labelled]


def pseudo_labels(  # noqa: PLR0913 (what is known of the lesions, column by column)
    features: NDArray[np.floating],
    types: NDArray[np.int64],
    patients: NDArray[np.int64],
    seed_rows: NDArray[np.int64],
    target_rows: NDArray[np.int64],
    seed: int,
    settings: LabelSettings | None = None,
    *,
    refinement: int = 0,
    weights: NDArray[np.floating] | None = None,
) -> Labels:
    """Label the targets from the seeds.

    Args:
        features: (n, F), finite for seeds and targets.
        types: (n,) place in `LESION_TYPES`, -1 unknown; looked at for seeds only.
        patients: (n,) any integer that tells patients apart.
        seed_rows: places of the lesions whose type is trusted; those of unknown type are left out.
        target_rows: places of the lesions to label; a seed among them keeps its own type.
        seed: mixes the folds.
        settings: see there.
        refinement: the round these labels are of.
        weights: (F,) what each feature is multiplied with once it is standardised; None = 1.

    Raises:
        TrainingError: the seeds are of one type or one patient, or features are missing.
    """
    settings = settings or LabelSettings()
    seeds, targets = _checked(features, types, patients, seed_rows, target_rows)
    held, known = np.unique(types[seeds], return_inverse=True)
    groups = patients[seeds]
    centre, scale = _standard(features[seeds])
    if weights is not None:
        scale = scale / weights
    learnt = _standardised(features[seeds], centre, scale)
    folds = _folds(known, groups, seed)
    strength, width, score = _choose(learnt, known, groups, seed, settings)
    machine = CalibratedClassifierCV(
        _KernelMachine(len(held), strength, width / learnt.shape[1], settings.balanced),
        method="sigmoid",
        cv=folds,
        ensemble=False,
    ).fit(learnt, known)
    labels = np.full(len(types), UNKNOWN, dtype=np.int64)
    classes = np.full((len(types), len(LESION_TYPES)), np.nan)
    for begin in range(0, len(targets), _BLOCK):
        block = targets[begin : begin + _BLOCK]
        classes[block] = 0
        classes[np.ix_(block, held)] = machine.predict_proba(_standardised(features[block], centre, scale))
    labels[targets] = classes[targets].argmax(axis=1)
    labels[seeds] = types[seeds]
    classes[seeds] = np.eye(len(LESION_TYPES))[types[seeds]]
    probability = np.where(labels >= 0, np.nan_to_num(classes)[np.arange(len(labels)), labels], np.nan)
    record = _record(types[seeds], groups, labels[targets], probability[targets], settings)
    record |= {"strength": strength, "width": width, "score": score, "folds": len(folds), "seed": seed}
    return Labels(labels, probability, classes, refinement, record)


def refine(
    embeddings: NDArray[np.floating],
    types: NDArray[np.int64],
    patients: NDArray[np.int64],
    seed_rows: NDArray[np.int64],
    before: Labels,
    seed: int,
    settings: LabelSettings | None = None,
    weights: NDArray[np.floating] | None = None,
) -> Labels:
    """The next round: learn the types anew from the trained network's embeddings, for the lesions labelled `before`.

    The record adds the share of targets whose type changed.
    """
    seeds = np.unique(np.asarray(seed_rows, dtype=np.int64))
    targets = np.setdiff1d(np.flatnonzero(before.types >= 0), seeds)
    after = pseudo_labels(
        embeddings, types, patients, seeds, targets, seed, settings, refinement=before.round + 1, weights=weights
    )
    changed = float(np.mean(after.types[targets] != before.types[targets])) if targets.size else 0.0
    after.record["changed_share"] = changed
    return after


class _KernelMachine(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A radial-kernel machine that scores every type, also those that a fold's part does not hold."""

    def __init__(self, types: int, strength: float, gamma: float, balanced: bool) -> None:
        self.types = types
        self.strength = strength
        self.gamma = gamma
        self.balanced = balanced

    def fit(self, features: NDArray[np.float64], types: NDArray[np.int64]) -> "_KernelMachine":
        """Learn from standardised features and types counted from 0."""
        self.classes_ = np.arange(self.types)
        self.held_ = np.unique(types)
        self.features_ = features
        if len(self.held_) > 1:
            weights = "balanced" if self.balanced else None
            self.machine_ = SVC(C=self.strength, kernel="precomputed", class_weight=weights)
            self.machine_.fit(_kernel(features, features, self.gamma), types)
        return self

    def decision_function(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, types) scores, higher is likelier; (n,) for the second of two types."""
        scores = np.empty((len(features), len(self.classes_)))
        held = np.isin(self.classes_, self.held_)
        if len(self.held_) == 1:
            scores[:] = np.where(held, 1.0, -1.0)
        else:
            found = self.machine_.decision_function(_kernel(features, self.features_, self.gamma))
            found = np.stack((-found, found), axis=1) if found.ndim == 1 else found
            scores[:, held] = found
            scores[:, ~held] = found.min()
        return scores[:, 1] if scores.shape[1] == 2 else scores

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        """The type of the highest score."""
        scores = self.decision_function(features)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[best])


def _kernel(left: NDArray[np.float64], right: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-gamma * _squared_distances(left, right)))


def _squared_distances(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    apart = np.einsum("ij,ij->i", left, left)[:, None] + np.einsum("ij,ij->i", right, right)[None, :]
    apart -= 2 * (left @ right.T)
    return np.asarray(np.maximum(apart, 0, out=apart))


def _checked(
    features: NDArray[np.floating],
    types: NDArray[np.int64],
    patients: NDArray[np.int64],
    seed_rows: NDArray[np.int64],
    target_rows: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The seeds of known type and the targets that are no seeds, each once and in order."""
    if features.ndim != 2 or not len(features) == len(types) == len(patients):
        shapes = (features.shape, np.shape(types), np.shape(patients))
        raise UsageError(f"features, types and patients have the shapes {shapes}", where="pseudo-labels")
    seeds = np.unique(np.asarray(seed_rows, dtype=np.int64))
    seeds = seeds[types[seeds] >= 0]
    targets = np.setdiff1d(np.asarray(target_rows, dtype=np.int64), seeds)
    if not seeds.size:
        raise _refusal("no seed lesion has a type", "label some lesions, or choose a split whose types are known")
    held = np.unique(types[seeds])
    if len(held) < 2:
        raise _refusal(
            f"all {len(seeds)} seed lesions are of one type ({LESION_TYPES[held[0]]})",
            "label lesions of at least two types",
        )
    if len(np.unique(patients[seeds])) < 2:
        raise _refusal(
            f"all {len(seeds)} seed lesions are of one patient",
            "label lesions of at least two patients: labels are tested on patients that were not learnt from",
        )
    both = np.concatenate((seeds, targets))
    broken = int(np.count_nonzero(~np.isfinite(features[both]).all(axis=1)))
    if broken:
        raise _refusal(f"{broken} of {len(both)} lesions have features that are not finite", "compute them again")
    if (features[seeds] == features[seeds[0]]).all():
        raise _refusal(f"all {len(seeds)} seed lesions have the same features", "check the network that made them")
    return seeds, targets


def _standard(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centre = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    # A feature that never changes among the seeds tells nothing, and must not blow up a target that has another value.
    return centre, np.where(scale > 1e-7 * np.maximum(np.abs(centre), 1e-30), scale, np.inf)


def _standardised(
    features: NDArray[np.floating], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray((features - centre) / scale)


def _folds(types: NDArray[np.int64], patients: NDArray[np.int64], seed: int) -> Folds:
    """Up to three folds of whole patients, with the types spread as evenly as patients allow."""
    count = min(FOLDS, len(np.unique(patients)))
    splitter = StratifiedGroupKFold if np.bincount(types).max() >= count else GroupKFold
    with warnings.catch_warnings():
        # Of types rarer than folds; the machine can do without a type.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = splitter(count, shuffle=True, random_state=seed % 2**32).split(types, types, patients)
        return list(folds)


def _choose(
    features: NDArray[np.float64],
    types: NDArray[np.int64],
    patients: NDArray[np.int64],
    seed: int,
    settings: LabelSettings,
) -> tuple[float, float, float]:
    """Strength, width and their score on unseen patients; of equal ones the weakest, then the widest kernel."""
    rows = _whole_patients(patients, settings.choice_rows, seed)
    if len(np.unique(types[rows])) < 2 or len(np.unique(patients[rows])) < 2:
        rows = np.arange(len(types))
    features, types, patients = features[rows], types[rows], patients[rows]
    score: Callable[..., float] = _mean_recall if settings.balanced else accuracy_score
    said = {pair: np.empty_like(types) for pair in product(STRENGTHS, WIDTHS)}
    for learn, test in _folds(types, patients, seed):
        for (strength, width), answer in said.items():
            machine = _KernelMachine(int(types.max()) + 1, strength, width / features.shape[1], settings.balanced)
            answer[test] = machine.fit(features[learn], types[learn]).predict(features[test])
    scores = {pair: float(score(types, answer)) for pair, answer in said.items()}
    best = max(scores, key=lambda pair: scores[pair])
    return *best, scores[best]


def _mean_recall(types: NDArray[np.int64], said: NDArray[np.int64]) -> float:
    return float(np.mean([np.mean(said[types == kind] == kind) for kind in np.unique(types)]))


def _whole_patients(patients: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Rows of patients in mixed order until `most` are reached; all where that is enough."""
    if len(patients) <= most:
        return np.arange(len(patients))
    names, counts = np.unique(patients, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    kept = names[order[np.cumsum(counts[order]) <= most]]
    return np.flatnonzero(np.isin(patients, kept))


def _record(
    known: NDArray[np.int64],
    patients: NDArray[np.int64],
    labels: NDArray[np.int64],
    probability: NDArray[np.float64],
    settings: LabelSettings,
) -> dict[str, object]:
    def by_type(types: NDArray[np.int64]) -> dict[str, int]:
        return {
            LESION_TYPES[kind]: int(count) for kind, count in zip(*np.unique(types, return_counts=True), strict=True)
        }

    return {
        "seeds": len(known),
        "seed_patients": len(np.unique(patients)),
        "seeds_by_type": by_type(known),
        "targets": len(labels),
        "targets_by_type": by_type(labels),
        "mean_probability": float(probability.mean()) if labels.size else None,
        "balanced": settings.balanced,
    }


def _refusal(what: str, next_step: str) -> TrainingError:
    return TrainingError(what, where="pseudo-labels", next_step=next_step)
