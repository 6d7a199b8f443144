"""Models of the lake without a training: a narrow network, weights drawn from a seed, published as trained ones are."""

import torch

from lesionary.models import ModelDraft, publish
from trainers.checkpoint import weights_bytes
from trainers.triplet.model import build_net

SMALL_NET = {"backbone": "narrow", "dimension": 16, "stage_dimension": 8, "grid": 2, "regions": "align"}


def small_net(seed=0, **changes):
    """The network of a model that `publish_small` publishes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_net(SMALL_NET | changes).eval()


def publish_small(lake, name="triplet", kind="triplet", seed=0, scale_mm=4.0, **changes):
    """Publish it; its card is what comes back."""
    settings = SMALL_NET | changes | {"scale_mm": scale_mm, "multi_scale": True}
    draft = ModelDraft(kind=kind, preset="smoke", settings=settings, lake={}, data={}, metrics={}, seed=seed)
    return publish(lake, name, draft, weights_bytes(small_net(seed, **changes).state_dict()))
