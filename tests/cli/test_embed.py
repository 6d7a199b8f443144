"""`lesionary embed` and `lesionary similar --image` as a person runs them."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_models import publish_small, small_net

from lesionary.lake import Lake
from lesionary.models import list_models
from trainers.checkpoint import weights_bytes

ROOT = str(Path(__file__).parents[2])

# Of lesion dl-1: zero-based pixels, where the release counts from one.
BOX, SPACING = "19,24,39,34", "0.8,0.8,5"
SLICE = Path("Images_png", "000001_01_01", "003.png")


@pytest.fixture
def filled(run, release):
    """A lake with three lesions that have an image, and a model; not yet embedded."""
    assert run("ingest", release)[0] == 0
    publish_small(Lake.open("lake"))
    return run


@pytest.fixture
def embedded(filled):
    assert filled("embed", "--precision", "fp32")[0] == 0
    assert filled("sync")[0] == 0
    return filled


def test_embed_prints_counts_that_add_up_and_says_when_there_is_nothing_to_do(filled):
    code, out, notes = filled("embed")
    assert code == 0
    assert "triplet@1: 4 lesions = 3 embedded + 0 that had a vector + 1 without a patch (key_slice_missing 1)" in out
    assert "too few marks to choose thresholds" in notes

    code, out, notes = filled("embed", "--json")
    assert code == 0
    summary = json.loads(out)
    assert (summary["embedded"], summary["kept"], summary["model_id"]) == (0, 3, "triplet-1")
    assert "nothing to do" in filled("embed")[2]


def test_a_model_is_named_by_its_id_or_its_name(filled):
    lake = Lake.open("lake")
    publish_small(lake, seed=1)
    publish_small(lake, "mine", seed=2)

    assert "mine@1: " in filled("embed", "--model", "mine")[1]
    assert "triplet@1: " in filled("embed", "--model", "triplet-1")[1]
    assert "triplet@2: " in filled("embed", "--model", "triplet")[1]
    assert filled("embed", "--model", "absent")[0] == 2


def test_features_without_training_are_a_model_of_their_own(filled, tmp_path):
    chosen = ("embed", "--features", "multi-scale", "--backbone", "narrow", "--weights")
    assert "multi-scale@1: 4 lesions = 3 embedded" in filled(*chosen, "none")[1]
    assert "multi-scale@1: 4 lesions = 0 embedded" in filled(*chosen, "none")[1]
    assert "multi-scale@2: 4 lesions = 3 embedded" in filled(*chosen, "none", "--seed", 1)[1]
    (tmp_path / "net.safetensors").write_bytes(weights_bytes(small_net(3).state_dict()))
    assert "multi-scale@3: " in filled(*chosen, "net.safetensors")[1]
    # As the model was trained to see: its scale and its backbone.
    assert "multi-scale@4: " in filled("embed", "--features", "multi-scale", "--weights", "triplet-1")[1]

    cards = list_models(Lake.open("lake"), "multi-scale")
    assert [card.settings["scale_mm"] for card in cards] == [1.0, 1.0, 1.0, 4.0]
    assert [card.data["start"]["source"] for card in cards] == ["none", "none", "file", "file"]
    filled("sync")
    hits = filled("similar", "dl-1", "--feature-set", "multi-scale@4", "--json")
    assert [row["lesion_id"] for row in json.loads(hits[1])] == ["dl-3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--weights", "none"), "these choose features, not a trained model"),
        (("--features", "multi-scale", "--model", "triplet"), "from a model or from features"),
        (("--features", "multi-scale", "--weights", "x/absent.pt"), "there is no such file"),
        (("--features", "multi-scale", "--weights", "none", "--backbone", "alexnet"), "there is no backbone"),
        (("--gpus", "1"), "no GPU is at hand"),
    ],
)
def test_what_embed_cannot_do_is_one_line(filled, arguments, said):
    import torch

    if "--gpus" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, _, message = filled("embed", *arguments)
    assert code == 2
    assert said in message


def test_models_that_give_no_vectors_and_names_of_built_in_sets_are_refused(filled):
    lake = Lake.open("lake")
    publish_small(lake, "heights", "ssbr")
    publish_small(lake, "location")

    assert "heights-1 is a ssbr model, which gives lesions no vectors" in filled("embed", "--model", "heights")[2]
    assert "a built-in feature set has this model's name" in filled("embed", "--model", "location")[2]


def test_a_lake_without_a_model_or_lesions_says_so(run, release):
    Lake.create("lake")
    assert "there is no triplet model" in run("embed")[2] or "no triplet model yet" in run("embed")[2]
    publish_small(Lake.open("lake"))
    assert "there is no lesion in it" in run("embed")[2]


def test_an_image_of_the_lake_is_nearest_to_its_own_lesion(embedded, release):
    code, out, notes = embedded("similar", "--image", release / SLICE, "--box", BOX, "--spacing-mm", SPACING, "--csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["query"] for row in rows] == ["003.png"] * 3
    assert rows[0]["lesion_id"] == "dl-1"
    assert float(rows[0]["distance"]) < 0.05 < float(rows[1]["distance"])
    assert "searched in triplet@1, the newest feature set of a model" in notes


def test_conditions_and_pictures_go_with_images(embedded, release, tmp_path):
    code, out, _ = embedded(
        "similar", "--image", release / SLICE, "--box", BOX, "--spacing-mm", "0.8", "--feature-set", "triplet",
        "--where", "patient_id = 'dl-000002'", "--picture", "found.png", "--json",
    )  # fmt: skip

    assert code == 0
    assert [row["lesion_id"] for row in json.loads(out)] == ["dl-3"]
    assert Image.open(tmp_path / "found.png").width > 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", "x.png"), "add --box"),
        (("--image", "x.png", "--box", "1,2,3,4"), "x.png"),
        (("--image", "x.png", "--box", "1,2,x,4"), "--box: numbers separated by commas"),
        (("dl-1", "--box", "1,2,3,4"), "--box: this belongs to an image"),
        (("dl-1", "--slice", "1"), "--slice: this belongs to an image"),
        (("dl-1", "--image", "x.png", "--box", "1,2,3,4"), "name lesions, or give --vector, --from or --image"),
        (
            ("--image", "x.png", "--box", "1,2,3,4", "--feature-set", "location"),
            "location@1 follows from a lesion's measurements, not from its image",
        ),
    ],
)
def test_what_cannot_be_looked_up_is_one_line(embedded, arguments, said):
    code, out, message = embedded("similar", *arguments)
    assert (code, out) == (2, "")
    assert said in message


def test_an_image_needs_a_set_whose_model_the_lake_has(filled, release):
    filled("sync")
    image = ("similar", "--image", release / SLICE, "--box", BOX, "--spacing-mm", "0.8")
    assert "no feature set of a model of the lake; run `lesionary train triplet`" in filled(*image)[2]
    filled("embed")
    filled("sync")
    os.rename("lake/models/triplet-1", "lake/models/away")

    assert "no feature set of a model of the lake" in filled(*image)[2]
    assert "the lake has no model 'triplet-1'" in filled(*image, "--feature-set", "triplet")[2]


def test_a_damaged_model_is_one_line(embedded, release):
    Path("lake/models/triplet-1/weights.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n.")

    code, _, message = embedded("similar", "--image", release / SLICE, "--box", BOX, "--spacing-mm", "0.8")
    assert code == 2
    assert "not what was published" in message


def test_other_questions_load_neither_torch_nor_ray(embedded, tmp_path):
    program = (
        "import sys\nfrom cli.main import app\n"
        "app(['similar', 'dl-1', '--feature-set', 'triplet'], standalone_mode=False)\n"
        "print({'torch', 'ray', 'pydicom'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": ROOT},
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.slow
def test_several_workers_run_on_ray_and_nothing_but_notes_is_heard(filled):
    # In a process of its own: other tests share a cluster in this one.
    program = "from cli.main import main; main()"
    command = [sys.executable, "-c", program, "embed", "--workers", "2"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": ROOT, "PYTHONWARNINGS": ""},
    )

    assert done.returncode == 0, done.stderr
    assert "3 embedded" in done.stdout
    assert all(line.startswith(("3 vectors", "too few", "`lesionary sync`")) for line in done.stderr.splitlines())
