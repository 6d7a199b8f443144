"""One of several workers of a training run, as a process: rank, workers, meeting point, folder, spoilt step or -1."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from small_learner import PAIR_SETTINGS, SmallLearner

from lesionary.errors import TrainingError
from trainers.fitting import Alone, fit


class GlooPlace(Alone):
    """A worker's place: the first keeps the checkpoints, all read them."""

    def __init__(self, folder, rank, world):
        super().__init__(folder, "cpu")
        self.rank, self.world = rank, world


class Spoilt(SmallLearner):
    """One worker's loss is no number at one step."""

    spoilt_step = -1

    def batch(self, step, share):
        made = super().batch(step, share)
        if step == self.spoilt_step and share.rank == share.world - 1:
            made["images"] = made["images"] * float("nan")
        return made


def leave():
    """End this process, which did all it was to do.

    PyTorch keeps Gloo's threads once gradients were averaged; one that wants the interpreter while it is taken down
    aborts the process. Ray's workers leave like this as well.
    """
    sys.stderr.flush()
    os._exit(0)


def main(rank, world, meeting, folder, spoilt_step):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    learner = Spoilt()
    learner.spoilt_step = spoilt_step
    try:
        result = fit(learner, PAIR_SETTINGS, GlooPlace(folder, rank, world))
        answer = {"curve": result.curve, "state": learner.extra_state()}
    except TrainingError as error:
        answer = {"error": error.sentence}
    Path(folder, f"worker-{rank}.json").write_text(json.dumps(answer))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    leave()
