"""A node killed under a training: the others stop, all start again elsewhere and end where a calm training ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from cluster.ray_nodes import RayNodes
from faults.processes import wait_for, wait_until
from safetensors.numpy import load
from small_training.driver import driver

from lesionary.lake import Lake
from lesionary.models import list_models, read_weights


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_training_goes_on_from_its_checkpoint_with_the_node_that_comes(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    with RayNodes(1, cores=0) as nodes:
        nodes.add(cores=1)
        nodes.add(cores=1)
        training = driver(
            lake.url, tmp_path, nodes.environment(), nodes.head.prefix, workers=2, ray_address=nodes.address
        )
        wait_until((tmp_path / "stopped").exists, training)
        nodes.kill(nodes.workers[0])
        nodes.add(cores=1, wait=False)
        ended = wait_for(training)

    assert ended.code == 0, ended.said
    (card,) = list_models(lake)
    result = json.loads(Path(lake.location.path, "models", "runs", "r1", "result.json").read_text())
    trained = result["returned"]["trained"]
    assert (trained["steps_done"], trained["resumed_from"], trained["world"]) == (22, 10, 2)
    assert card.hardware["restarts"] == 1
    calm = Lake.create(str(tmp_path / "calm"))
    assert wait_for(driver(calm.url, tmp_path)).code == 0
    whole = load(read_weights(calm, *list_models(calm)))
    for name, weights in load(read_weights(lake, card)).items():
        np.testing.assert_allclose(weights, whole[name], rtol=1e-4, atol=1e-6)
