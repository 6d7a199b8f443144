"""Vectors of detections: made as those of marked lesions are, in a set of their own, and made again where due.

The model says a patch's mean HU inside its box, and its side: a lesion and a detection of the same box agree.
"""

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
from blob_finder import blob_detector
from blob_series import BLOBS, NAMES, row_of, take_in, write_series

from etl.detect import detect
from etl.detect_slices import DetectSettings
from etl.embed import EmbeddingModel, embed
from etl.embed_detections import embed_detections
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake


def look(patches):
    vectors = []
    for row in patches.to_pylist():
        pixels = np.frombuffer(row["pixels"], "<i2").reshape(3, row["side"], row["side"])
        x0, y0, x1, y1 = (round(edge) for edge in row["box"])
        vectors.append([float(pixels[:, y0:y1, x0:x1].mean()), float(row["side"]), row["box"][0]])
    return np.array(vectors, np.float32).reshape(-1, 3)


KEEP_ALL = DetectSettings(min_score=0.0)
MODEL = EmbeddingModel("triplet-1", "triplet", 1, lambda: look)


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        write_series(tmp_path / "release", name, BLOBS)
    return tmp_path / "release"


@pytest.fixture
def lake(tmp_path, folder):
    """Each lesion is marked with the very box that is found on slice 3."""
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, *map(row_of, NAMES))
    detect(lake, blob_detector(), KEEP_ALL)
    return lake


def vectors_of(lake, set_id):
    rows = lake.read("embeddings", where=pc.field("feature_set_id") == set_id).to_pylist()
    assert len({row["lesion_id"] for row in rows}) == len(rows)
    return {row["lesion_id"]: row["vector"] for row in rows}


def adds_up(summary):
    return summary.lesions == summary.kept + summary.embedded + sum(summary.left_out.values())


def test_a_detection_with_a_lesion_s_box_gets_the_lesion_s_vector(lake):
    embed(lake, MODEL)
    summary = embed_detections(lake, MODEL, "detector-1")

    assert adds_up(summary)
    assert (summary.feature_set_id, summary.lesions, summary.embedded) == ("triplet-detections@1", 6, 6)
    lesions, detections = vectors_of(lake, "triplet@1"), vectors_of(lake, "triplet-detections@1")
    assert len(lesions) == 3
    for patient in (1, 2, 3):
        assert detections[f"detector-1/dl-00000{patient}_01_01/1"] == pytest.approx(lesions[f"dl-{patient}"], abs=1e-3)
    described = {row["feature_set_id"]: row for row in lake.read("feature_sets").to_pylist()}["triplet-detections@1"]
    assert (described["name"], described["version"], described["model_id"], described["dimension"]) == (
        "triplet-detections", 1, "triplet-1", 3,
    )  # fmt: skip
    assert described["t1"] is None


def test_less_sure_ones_wait_and_a_second_run_does_what_is_missing(lake):
    first = embed_detections(lake, MODEL, "detector-1", 0.5)
    assert adds_up(first)
    assert (first.embedded, first.left_out) == (3, {"score below 0.5": 3})
    second = embed_detections(lake, MODEL, "detector-1")
    assert adds_up(second)
    assert (second.kept, second.embedded) == (3, 3)
    versions = dict(lake.snapshot().versions)
    third = embed_detections(lake, MODEL, "detector-1", 0.5)
    assert (third.kept, third.embedded, third.left_out) == (6, 0, {})
    assert lake.snapshot().versions == versions


def test_detections_of_two_detectors_share_the_set(lake):
    detect(lake, blob_detector("detector-2"), DetectSettings(min_score=0.5))
    embed_detections(lake, MODEL, "detector-1")
    summary = embed_detections(lake, MODEL, "detector-2")

    assert (summary.lesions, summary.embedded) == (3, 3)
    names = vectors_of(lake, "triplet-detections@1")
    assert sorted(name.split("/")[0] for name in names) == ["detector-1"] * 6 + ["detector-2"] * 3


def test_a_detection_that_changed_gets_a_new_vector(lake, folder):
    embed_detections(lake, MODEL, "detector-1")
    before = vectors_of(lake, "triplet-detections@1")
    write_series(folder, NAMES[1], {3: [(50, 40, 6, 700)]})
    take_in(lake, folder, *map(row_of, NAMES))
    detect(lake, blob_detector(), KEEP_ALL)
    summary = embed_detections(lake, MODEL, "detector-1")

    assert adds_up(summary)
    assert (summary.lesions, summary.embedded) == (5, 1)
    after = vectors_of(lake, "triplet-detections@1")
    changed = "detector-1/dl-000002_01_01/1"
    assert after[changed] != before[changed]
    assert {name: vector for name, vector in after.items() if name != changed} == {
        name: vector for name, vector in before.items() if name != changed
    }


def test_a_killed_run_goes_on_and_the_set_is_described_last(lake, monkeypatch):
    def dying(tasks, make_model):
        yield next(iter(tasks)).run(make_model())
        raise KeyboardInterrupt

    monkeypatch.setattr("etl.embed_detections.patches_per_task", lambda patches, workers: 2)
    with pytest.raises(KeyboardInterrupt):
        embed_detections(lake, MODEL, "detector-1", choose_inference=lambda _: (dying, 1), commit_seconds=0)
    assert not lake.read("feature_sets").num_rows
    assert len(vectors_of(lake, "triplet-detections@1")) == 2

    summary = embed_detections(lake, MODEL, "detector-1")
    assert (summary.kept, summary.embedded) == (2, 4)
    assert len(vectors_of(lake, "triplet-detections@1")) == 6
    assert lake.read("feature_sets").num_rows == 1


def test_no_detection_and_somebody_else_s_set_are_refused(lake):
    with pytest.raises(LakeError, match="no detection by detector-9"):
        embed_detections(lake, MODEL, "detector-9")
    embed_detections(lake, MODEL, "detector-1")
    with pytest.raises(UsageError, match="with vectors by triplet-1"):
        embed_detections(lake, replace(MODEL, model_id="mine-1"), "detector-1")
