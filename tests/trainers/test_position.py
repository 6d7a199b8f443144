"""The start by position: crops lie where they say, shares make up the batch, weights fit elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from lesionary.caches import CacheWriter
from lesionary.errors import UsageError
from lesionary.lake import Lake
from lesionary.patch_schema import PATCH_KIND, PATCHES
from trainers.batches import PatchSource
from trainers.fitting import Alone, Share
from trainers.position.loop import PositionLearner, main, train, usable_rows
from trainers.position.model import PositionNet
from trainers.position.presets import PRESETS, PositionSettings, settings_for
from trainers.position.targets import Draw, cut_crops, draw_crops, middle_crops, position_loss, read_crops
from trainers.triplet.model import build_net
from trainers.weights import start_weights

SETTINGS = PositionSettings(scale_mm=2.0, crop_mm=64, batch=6, steps=3, hidden=8, checkpoint_every=0, log_every=1)


def patch_table(count: int = 12, located: bool = True) -> pa.Table:
    """Patches of two sizes; brightness rises along x in the first slice and along y in the second."""
    rows = []
    for number in range(count):
        side = 128 if number % 3 else 160
        ramp = np.arange(side, dtype=np.int16) * 16 - 1000
        pixels = np.zeros((3, side, side), np.int16)
        pixels[0], pixels[1], pixels[2] = ramp[None, :], ramp[:, None], 10 * number
        place = number / count
        rows.append(
            {
                "lesion_id": f"l-{number}", "patient_id": f"p-{number // 2}", "study_id": f"s-{number}",
                "split": ("train", "val", None)[number % 3],
                "x": 0.2 + place / 2 if located else None, "y": 0.7 - place / 2 if located else None,
                "z": place if located and number % 4 else None,
                "side": side, "box": [side / 2 - 9, side / 2 - 8, side / 2 + 9, side / 2 + 8],
                "extent": [0, 0, side, side], "pixels": pixels.tobytes(),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, PATCHES)


@pytest.fixture
def cache(tmp_path: Path) -> str:
    lake = Lake.create(str(tmp_path / "lake"))
    with CacheWriter(lake, PATCH_KIND, {}, {}, PATCHES) as writer:
        writer.write(0, patch_table())
        return writer.finish().url


@pytest.fixture
def source() -> PatchSource:
    return PatchSource(patch_table())


def test_a_crop_lies_where_it_is_said_to_lie(source: PatchSource) -> None:
    settings = PositionSettings(scale_mm=1.0, crop_mm=64, shift_mm=30, body_width_mm=400, body_depth_mm=200)
    rows = np.array([1, 2, 4], np.int64)  # all of 128 px
    draw = Draw(rows, np.array([[0, 0], [1, -1], [-0.5, 0.25]], np.float32), np.full((3, 2), 20, np.float32))
    batch = source.take(rows)[0]
    crops, places = cut_crops(batch.images, source.location[rows], draw, settings)
    assert crops.shape == (3, 3, 64, 64)
    # What the ramps say of the crop's middle, in pixels off the patch's middle.
    hu = crops[:, :2].mean(dim=(2, 3)).numpy() / 255 * 4095 - 1024
    off_px = (hu + 1000) / 16 + 0.5 - 64
    assert np.allclose(off_px, [[0, 0], [30, -30], [-15, 8]], atol=0.01)
    assert np.allclose(places[:, :2], source.location[rows, :2] + off_px / [400, 200], atol=1e-4)
    assert np.array_equal(places[:, 2], source.location[rows, 2], equal_nan=True)


def test_a_crop_stays_within_its_patch_however_far_it_may_move(source: PatchSource) -> None:
    settings = PositionSettings(scale_mm=1.0, crop_mm=100, shift_mm=200)
    rows = np.array([1, 2], np.int64)
    draw = Draw(rows, np.array([[1, 1], [-1, -1]], np.float32), np.full((2, 2), 20, np.float32))
    batch = source.take(rows)[0]
    crops, _ = cut_crops(batch.images, source.location[rows], draw, settings)
    assert torch.equal(crops[0], batch.images[0, :, 28:, 28:])
    assert torch.equal(crops[1], batch.images[1, :, :100, :100])


def test_patches_of_several_sizes_make_one_batch(source: PatchSource) -> None:
    crops = read_crops(source, middle_crops(np.arange(12), SETTINGS), SETTINGS)
    assert crops.images.shape == (12, 3, 32, 32)
    # The third slice tells which patch it is of.
    number = ((crops.images[:, 2, 16, 16] / 255 * 4095 - 1024) / 10).round().long().numpy()
    assert sorted(number) == list(range(12))
    expected = source.location[number]
    assert np.array_equal(crops.known.numpy() > 0, np.isfinite(expected))
    assert np.allclose(crops.places.numpy(), np.nan_to_num(expected), atol=1e-6)
    assert torch.equal(crops.boxes.sum(dim=1), torch.full((12,), 64.0))


def test_shares_of_two_workers_make_up_the_batch_of_one(source: PatchSource) -> None:
    learner = PositionLearner(PositionNet("narrow", 8, 2), source, usable_rows(source)["train"], SETTINGS)
    whole = learner.batch(5, Share())
    parts = [learner.batch(5, Share(rank, 2)) for rank in range(2)]
    for name in ("images", "boxes", "places", "known"):
        joined = torch.cat([getattr(part, name) for part in parts]).flatten(1)
        assert torch.equal(joined.sort(dim=0)[0], getattr(whole, name).flatten(1).sort(dim=0)[0])
    again = learner.batch(5, Share())
    assert torch.equal(whole.images, again.images)
    assert not torch.equal(whole.images, learner.batch(6, Share()).images)


def test_no_row_comes_twice_before_all_have_come_once() -> None:
    rows = np.array([3, 5, 8], np.int64)
    drawn = draw_crops(rows, PositionSettings(batch=7), np.random.default_rng(0))
    assert sorted(np.unique(drawn.rows[:6], return_counts=True)[1].tolist()) == [2, 2, 2]
    assert np.abs(drawn.offsets).max() <= 1
    assert drawn.box_mm.min() >= 10
    assert drawn.box_mm.max() <= 60


def test_the_loss_by_hand_and_unknown_coordinates_take_no_part() -> None:
    said = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.52, 0.1]], requires_grad=True)
    places = torch.tensor([[0.5, 0.1, 0.0], [0.5, 0.5, 0.3]])
    known = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    parts = position_loss(said, places, known, 0.1)
    # Smooth L1 with its bend at 0.1: e²/0.2 below, e − 0.05 above; the divisor is always two crops.
    assert parts["x"].item() == pytest.approx((0 + 0.35) / 2)
    assert parts["y"].item() == pytest.approx((0.35 + 0.02**2 / 0.2) / 2)
    assert parts["z"].item() == pytest.approx(0.15 / 2)
    sum(parts.values()).backward()
    assert said.grad is not None
    assert float(said.grad[0, 2]) == 0


def test_the_network_learns_from_every_weight_and_names_three_places() -> None:
    net = PositionNet("narrow", 8, 2)
    said = net(torch.rand(2, 3, 48, 48) * 255, torch.tensor([[10.0, 10.0, 38.0, 38.0]] * 2))
    assert said.shape == (2, 3)
    said.square().sum().backward()
    assert all(one.grad is not None for one in net.parameters())


def test_splits_are_by_patient_and_only_known_places_count(source: PatchSource) -> None:
    rows = usable_rows(source)
    assert {0, 3, 6, 9} <= set(rows["train"].tolist())
    assert {1, 4, 7, 10} <= set(rows["val"].tolist())
    # Where the source gives no split (rows 2, 5, …), the patient decides.
    joined = np.concatenate(list(rows.values()))
    assert sorted(joined.tolist()) == list(range(12))
    for split, mine in rows.items():
        assert {str(source.splits[row]) for row in mine} <= {split, ""}


def job(cache: str, out: Path, **changes: Any) -> dict[str, Any]:
    settings = {name: value for name, value in SETTINGS.record().items() if value is not None}
    return {"patches": cache, "out": str(out), "preset": "smoke", "settings": settings, **changes}


def test_a_training_is_repeatable_and_its_weights_start_the_triplet_network(cache: str, tmp_path: Path) -> None:
    found = [train(job(cache, tmp_path / name), Alone(device="cpu")) for name in "ab"]
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in "ab")
    assert first == second
    assert found[0]["curve"] == found[1]["curve"]
    assert found[0]["steps_done"] == 3
    assert json.loads(json.dumps(found[0])) == found[0]
    assert {"error_x_val", "guess_error_z_val", "items_per_second"} <= set(found[0]["metrics"])
    assert found[0]["data"]["patches"] == 12
    net = build_net({"backbone": "narrow", "dimension": 8, "stage_dimension": 4})
    record = start_weights(net, str(tmp_path / "a" / "weights.safetensors"))
    assert (record.tensors, record.ignored) == (len(net.backbone.state_dict()), 0)


def test_a_training_can_go_on_from_weights(cache: str, tmp_path: Path) -> None:
    train(job(cache, tmp_path / "a"), Alone(device="cpu"))
    weights = str(tmp_path / "a" / "weights.safetensors")
    found = train(job(cache, tmp_path / "b", weights=weights, seed=1), Alone(device="cpu"))
    assert found["data"]["start"]["source"] == "file"


def test_patches_without_places_are_refused(tmp_path: Path) -> None:
    lake = Lake.create(str(tmp_path / "lake"))
    with CacheWriter(lake, PATCH_KIND, {}, {}, PATCHES) as writer:
        writer.write(0, patch_table(4, located=False))
        url = writer.finish().url
    with pytest.raises(UsageError, match="no patch of the training split has a known place"):
        train(job(url, tmp_path / "out"), Alone(device="cpu"))


def test_it_runs_as_a_module_without_ray(cache: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--patches", cache, "--out", str(tmp_path / "out"), "--preset", "smoke", "--steps", "2", "--device", "cpu"]
    assert main(given) == 0
    said = capsys.readouterr()
    assert "error_x_val" in json.loads(said.out)
    assert "step 2 of 2" in said.err
    assert json.loads((tmp_path / "out" / "result.json").read_bytes())["steps_done"] == 2
    assert main([*given[:1], str(tmp_path / "absent"), *given[2:]]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_presets_are_whole_and_changes_are_checked() -> None:
    assert settings_for("paper").backbone == "vgg16"
    for name in PRESETS:
        assert PositionSettings(**settings_for(name).record()) == PRESETS[name]
    assert settings_for("small", {"steps": 7, "seed": None}).steps == 7
    for preset, changes in (
        ("tiny", {}), ("small", {"stepz": 3}), ("small", {"steps": 0}), ("small", {"backbone": "alexnet"}),
        ("small", {"crop_mm": 40.0, "scale_mm": 2.0}), ("small", {"box_low_mm": 70.0}), ("small", {"scale_mm": "wide"}),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            settings_for(preset, changes)
