"""One of several workers that mine categories, as a process: rank, workers, meeting point, folder, patches."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from gloo_worker import GlooPlace, leave
from small_categories import TINY

from trainers.categoriser.loop import train


def main(rank, world, meeting, folder, patches):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    job = {"patches": patches, "out": str(folder), "preset": "smoke", "settings": TINY | {"max_rounds": 2}}
    found = train(job, GlooPlace(folder, rank, world))
    Path(folder, f"worker-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5])
    leave()
