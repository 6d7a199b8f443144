"""Body-part regression on whole scans of the phantom, from the release to the part of the body of unseen patients."""

import json

import numpy as np
import pytest
import torch

from etl.ingest import ingest
from etl.phantom.release import ReleaseSettings, write_release
from etl.planning import plan_sources
from etl.running import run_here
from etl.volumes import VolumeSettings, make_volumes
from lesionary.lake import Lake
from lesionary.settings import IngestSettings
from trainers.fitting import Alone
from trainers.ssbr.evaluate import body_part_scores, classes_of_heights, order_scores, phantom_heights
from trainers.ssbr.loop import train
from trainers.ssbr.model import net_from, score_slices
from trainers.ssbr.source import VolumeSource, spread_places


@pytest.mark.slow
def test_a_short_training_orders_and_places_unseen_scans(tmp_path):
    write_release(tmp_path / "release", ReleaseSettings(patients=1, seed=5, image_size=64, volumes=32), workers=2)
    lake = Lake.create(str(tmp_path / "lake"))
    plan = plan_sources([str(tmp_path / "release")], IngestSettings(namespace="vol"))
    ingest(lake, plan, IngestSettings(), choose_runner=lambda _: (run_here, 1))
    cache = make_volumes(lake, VolumeSettings(side=64))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job = {"volumes": cache.url, "preset": "smoke", "steps": 120, "out": str(tmp_path / "out")}
        result = train(job, Alone(device="cpu"))
    finally:
        torch.set_num_threads(threads)

    net = net_from((tmp_path / "out" / "weights.safetensors").read_bytes(), result["settings"])
    source = VolumeSource.open(cache.url)
    heights = phantom_heights(json.loads((tmp_path / "release" / "truth.json").read_text()), "vol")
    by_split = {True: [], False: []}
    for number, volume in enumerate(source.volumes):
        places = spread_places(volume.count, 40)
        scores = score_slices(net, source.slices(number, places)).astype(np.float64)
        indices = source.slice_indices(number, places)
        truth = np.array([heights[volume.series_id][index] for index in indices.tolist()])
        by_split[volume.split == "train"].append((scores, indices, classes_of_heights(truth)))
    unseen = order_scores([(scores, indices) for scores, indices, _ in by_split[False]])
    parts = body_part_scores(*(
        (np.concatenate([one[0] for one in by_split[seen]]), np.concatenate([one[2] for one in by_split[seen]]))
        for seen in (True, False)
    ))  # fmt: skip

    assert unseen.volumes >= 5
    assert unseen.mean_correlation > 0.85
    assert parts.accuracy > 0.7
