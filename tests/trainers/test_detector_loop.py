"""The detector trains, says what it was made of, comes back from its weights, and finds what it has learnt."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from small_stacks import stack_rows, stack_table, write_stacks

from lesionary.errors import ArtifactError, UsageError
from lesionary.lake import Lake
from lesionary.models import WEIGHTS_FILE, ModelDraft, publish
from trainers.checkpoint import weights_bytes
from trainers.detector.inference import Finder, detector_from, published_detector
from trainers.detector.loop import main, make_detector, padded_boxes, train
from trainers.detector.model import Detector
from trainers.detector.presets import DetectorSettings, settings_for
from trainers.detector.source import StackSource, plain_batch
from trainers.detector.validation import found_on, marked_rows, scores_for_card, truth_of
from trainers.fitting import Alone
from trainers.position.loop import PositionNet

TINY = {
    "pixel_mm": 2.0, "max_side_px": 128, "crop_px": 0, "batch": 2, "steps": 2, "checkpoint_every": 0, "log_every": 1,
    "pyramid_channels": 16, "head_width": 16, "proposals": 16, "region_sample": 16, "proposal_sample": 32,
}  # fmt: skip


def tiny(**changes) -> DetectorSettings:
    return settings_for("small", {**TINY, "anchors_px": [12.0], "anchor_ratios": [1.0], **changes})


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"slices": 1},
        {"slices": 9, "windows_hu": [-1024, 3071, -160, 240]},
        {"architecture": "paper", "anchors_px": [12.0, 24.0], "anchor_ratios": [0.5, 1.0, 2.0]},
        {"map_weight": 0.0},
        {"backbone": "convnext_tiny"},
        {"precision": "bf16"},
    ],
)
@pytest.mark.parametrize("categories", [1, 3])
def test_every_weight_learns_and_boxes_come_out(changes, categories):
    settings = tiny(**changes)
    source = StackSource(stack_table(stack_rows(4, slices=max(3, settings.slices), empty_every=4)))
    numbers = {f"dl-{number}": number % categories for number in range(4)}
    batch = plain_batch(source, [0, 1, 3], settings, numbers)
    detector = make_detector(settings, categories)

    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
        parts = detector(batch)
    sum(parts.values()).backward()

    assert set(parts) == {"proposal", "proposal_box", "category", "box"} | (
        {"map"} if detector.mapper is not None else set()
    )
    assert all(torch.isfinite(part) for part in parts.values())
    assert [name for name, one in detector.named_parameters() if one.grad is None] == []
    found = detector.eval().find(batch.images, batch.sizes)
    assert len(found) == 3
    for one, (rows, columns) in zip(found, batch.sizes.tolist(), strict=True):
        assert (one.scores[:-1] >= one.scores[1:]).all()
        assert (one.boxes[:, 2] <= columns).all()
        assert (one.boxes[:, 3] <= rows).all()
        assert set(one.categories.tolist()) <= set(range(categories))


def test_the_paper_has_no_last_pooling_and_sees_twice_as_finely():
    paper = Detector(tiny(architecture="paper"), 1)

    assert paper.trunk.strides == (8,)
    assert paper.trunk(torch.zeros(1, 3, 64, 96, dtype=torch.int16))[0].shape[-2:] == (8, 12)
    modern = Detector(tiny(), 1)
    assert modern.trunk.strides == (4, 8, 16, 32)
    assert [tuple(one.shape[-2:]) for one in modern.trunk(torch.zeros(1, 3, 64, 96, dtype=torch.int16))] == [
        (16, 24), (8, 12), (4, 6), (2, 3),
    ]  # fmt: skip


def test_at_first_further_slices_change_nothing():
    torch.manual_seed(0)
    wide = make_detector(tiny(slices=9), 1).eval()
    narrow = make_detector(tiny(slices=3), 1).eval()
    shared = {name: one for name, one in wide.state_dict().items() if not name.startswith("trunk.fusions")}
    narrow.load_state_dict(shared)
    stacks = torch.randint(-200, 300, (1, 9, 64, 64), dtype=torch.int16)

    for one, other in zip(wide.trunk(stacks), narrow.trunk(stacks[:, 3:6]), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_training_writes_weights_that_find_the_same_again(tmp_path):
    url = write_stacks(tmp_path, stack_rows(12))
    found = train({"stacks": url, "out": str(tmp_path), "settings": TINY}, Alone(tmp_path, "cpu"))

    assert found["steps_done"] == 2
    assert found["data"]["train_stacks"] == 8
    assert found["data"]["train_patients"] == 4
    assert 0 <= found["metrics"]["top_one_val"] <= 1
    assert found["settings"]["category_names"] == ["lesion"]
    json.dumps(found, allow_nan=False)
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    stacks = np.stack([StackSource(stack_table(stack_rows(1))).pixels(0, 3)] * 3)
    ways = [Finder(detector_from(weights, found["settings"]))(stacks) for _ in range(2)]
    assert [one.boxes.tolist() for one in ways[0]] == [one.boxes.tolist() for one in ways[1]]
    assert np.allclose(ways[0][0].boxes, ways[0][2].boxes, atol=1e-3)


def test_a_published_detector_is_read_out_of_the_lake(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    detector = make_detector(tiny(), 2)
    settings = tiny().record() | {"category_names": ["a", "b"]}
    draft = ModelDraft(kind="detector", preset="small", settings=settings, lake={}, data={}, metrics={}, seed=0)
    card = publish(lake, None, draft, weights_bytes(detector.state_dict()))

    (found,) = published_detector(lake.url, card.model_id)(np.zeros((1, 3, 50, 70), np.int16))

    assert found.boxes.shape[1] == 4
    assert found.boxes.dtype == np.float32
    with pytest.raises(UsageError, match="stacks of 3 slices are needed, found 1"):
        published_detector(lake.url, card.model_id)(np.zeros((1, 1, 50, 70), np.int16))


@pytest.mark.parametrize("settings", [{}, {"category_names": []}, {"category_names": ["a"], "slices": 4}])
def test_a_card_of_something_else_is_refused_in_one_line(settings):
    with pytest.raises(ArtifactError, match="its card is not a detector's"):
        detector_from(b"", settings)


def test_the_start_is_a_backbone_trained_on_something_else(tmp_path):
    url = write_stacks(tmp_path, stack_rows(12))
    start = tmp_path / "position.safetensors"
    start.write_bytes(weights_bytes(PositionNet("narrow", 8, 2).backbone.state_dict()))

    for architecture in ({}, {"architecture": "paper", "anchors_px": [24.0], "anchor_ratios": [1.0]}):
        job = {"stacks": url, "out": str(tmp_path), "settings": {**TINY, **architecture}, "weights": str(start)}
        assert train(job, Alone(None, "cpu"))["data"]["start"]["tensors"] > 20


def test_without_a_lesion_to_learn_from_there_is_one_line(tmp_path):
    rows = [row | {"split": "test"} for row in stack_rows(3)]
    with pytest.raises(UsageError, match="no stack of the training split has a lesion"):
        train({"stacks": write_stacks(tmp_path, rows), "out": str(tmp_path), "settings": TINY}, Alone(None, "cpu"))


def test_scores_count_the_stacks_that_show_a_lesion():
    source = StackSource(stack_table(stack_rows(18, empty_every=3)))
    rows = marked_rows(source, "train")
    truth = truth_of(source, rows, 4.0)

    class Perfect:
        """Finds what is there, and something else besides that it is less sure of."""

        detector = make_detector(tiny(box_padding_px=4.0), 1)

        def ask(self, images, sizes):
            batches = [plain_batch(source, [int(row)], self.detector.settings) for row in rows]
            own = [
                next(one for one in batches if torch.equal(one.images[0, :, :80, :80], image[:, :80, :80]))
                for image in images
            ]
            far = torch.tensor([[0.0, 0, 3, 3]])
            return [
                type("Boxes", (), {"boxes": torch.cat([one.boxes[0], far]), "scores": torch.tensor([0.9, 0.4]),
                                   "categories": torch.zeros(2).long()})
                for one in own
            ]  # fmt: skip

    scores = scores_for_card(truth, found_on(Perfect(), source, rows))

    assert truth.image_count == len(rows) == 9
    assert scores["top_one"] == 1.0
    assert scores["sensitivity_at_1"] == 1.0
    assert padded_boxes(source, rows, 4.0) == pytest.approx(truth.boxes, abs=1e-4)


def test_the_module_trains_by_itself_without_ray(tmp_path):
    url = write_stacks(tmp_path, stack_rows(12))
    arguments = ["--stacks", url, "--out", str(tmp_path / "out")]
    arguments += [f"--set={name}={json.dumps(value)}" for name, value in TINY.items()]
    program = (
        "import sys; sys.modules['ray'] = None; from trainers.detector.loop import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "top_one_val" in json.loads(done.stdout)
    assert "stacks/s" in done.stderr


def test_a_missing_cache_is_one_line(tmp_path, capsys):
    assert main(["--stacks", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "there is no finished cache here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["modern", "paper"])
def test_it_learns_to_find_discs(tmp_path, architecture):
    torch.set_num_threads(2)
    source = StackSource(stack_table(stack_rows(60, seed=4)))
    changes = {**TINY, "steps": 150, "batch": 6, "pyramid_channels": 32, "head_width": 64, "box_padding_px": 2.0}
    if architecture == "paper":
        changes |= {"architecture": "paper", "anchors_px": [16.0, 24.0, 32.0], "anchor_ratios": [0.5, 1.0, 2.0]}
    url = write_stacks(tmp_path, stack_rows(60, seed=4))

    found = train({"stacks": url, "out": str(tmp_path), "settings": changes}, Alone(None, "cpu"))

    unseen = marked_rows(source, "test")
    finder = Finder(detector_from((tmp_path / WEIGHTS_FILE).read_bytes(), found["settings"]))
    scores = scores_for_card(truth_of(source, unseen, 2.0), found_on(finder, source, unseen))
    assert scores["top_one"] >= 0.8
