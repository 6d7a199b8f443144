"""A detector trained as a person asks for it: stacks out of the lake, categories out of what models have said."""

import dataclasses

import pyarrow as pa
import pytest
from conftest import annotation_row, write_release

from cli.training import Wish, train
from cli.training_inputs import TRAINERS
from etl.ingest import ingest
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.errors import UsageError
from lesionary.lake import Lake
from lesionary.models import ModelDraft, publish, read_weights
from lesionary.results import write_results
from lesionary.schema import LABELS
from lesionary.settings import IngestSettings
from trainers.detector.inference import published_detector

TINY = Wish(
    preset="smoke",
    threads=1,
    changes={"steps": 2},
    pairs=["max_side_px=64", "checkpoint_every=0", "batch=2", "pyramid_channels=16", "head_width=16"],
)


def asking(setting):
    """The same with one more setting."""
    return dataclasses.replace(TINY, pairs=[*TINY.pairs, setting])


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """Three patients, one of each split, a mark each."""
    monkeypatch.chdir(tmp_path)
    lake = Lake.create("lake")
    rows = [
        annotation_row(
            File_name=f"00000{number}_01_01_003.png",
            Measurement_coordinates="50, 60, 70, 60, 60, 55, 60, 65",
            Bounding_boxes="45, 50, 75, 70",
            Image_size="128, 128",
            Spacing_mm_px_="2, 2, 2",
            Train_Val_Test=str(number),
            Coarse_lesion_type="-1" if number == 1 else "5",
        )
        for number in (1, 2, 3)
    ]
    source = write_release(tmp_path / "release", {f"00000{n}_01_01": range(1, 6) for n in (1, 2, 3)}, rows, 128)
    plan = plan_sources([str(source)], IngestSettings(namespace="dl"))
    ingest(lake, plan, IngestSettings(), choose_runner=lambda _: (run_here, 1))
    return lake


def labelled(lake, name, labels, rounds=(0,)):
    """A model that has labelled the lake's lesions, the same in every round but the last."""
    draft = ModelDraft(kind="categoriser", preset="smoke", settings={}, lake={}, data={}, metrics={}, seed=0)
    card = publish(lake, name, draft, b"weights")
    rows = [
        {"model_id": card.model_id, "lesion_id": lesion, "round": number, "score": 1.0,
         "label": label if number == rounds[-1] else "0"}
        for number in rounds
        for lesion, label in labels.items()
    ]  # fmt: skip
    write_results(lake, card.model_id, {LABELS.name: [pa.Table.from_pylist(rows, schema=LABELS.schema)]})
    return card.model_id


def test_a_detector_of_one_class_comes_of_a_lake(lake):
    card = train(TRAINERS["detector"], "lake", TINY)

    assert (card.model_id, card.kind) == ("detector-1", "detector")
    assert card.data["stacks"] == 3
    assert (card.data["train_stacks"], card.data["train_lesions"]) == (1, 1)
    assert card.settings["category_names"] == ["lesion"]
    assert len(card.settings["anchors_px"]) == 1
    assert set(card.lake) == {"lesions", "series", "slices"}
    assert read_weights(lake, card)
    assert published_detector(lake.url, card.model_id).detector.categories == 1


def test_categories_are_those_of_the_last_round_of_a_model(lake):
    model = labelled(lake, "kinds", {"dl-1": "2", "dl-2": "1"}, rounds=(0, 3))

    card = train(TRAINERS["detector"], "lake", asking("categories=kinds"))

    assert card.settings["category_names"] == ["0", "1", "2"]
    assert card.data["categories_of"] == model
    assert card.data["train_by_category"] == {"2": 1}


def test_types_said_by_a_triplet_network_are_categories_too(lake):
    labelled(lake, "types", {"dl-1": "liver"})

    card = train(TRAINERS["detector"], "lake", asking("categories=types-1"))

    assert card.settings["category_names"][3] == "liver"
    assert card.data["train_by_category"] == {"3": 1}


@pytest.mark.parametrize(
    ("categories", "sentence"),
    [
        ("nobody", "the lake has no model 'nobody'"),
        ("types", "no lesion of the training split has a category"),
        ("silent", "it has labelled no lesion of this lake"),
    ],
)
def test_categories_that_nobody_has_said_are_one_line(lake, categories, sentence):
    draft = ModelDraft(kind="categoriser", preset="smoke", settings={}, lake={}, data={}, metrics={}, seed=0)
    publish(lake, "silent", draft, b"weights")

    with pytest.raises(UsageError, match=sentence):
        train(TRAINERS["detector"], "lake", asking(f"categories={categories}"))
