"""The network that says where a crop lies: a backbone, looked at as the triplet network does, and a small head.

Stages 2 to 4 are pooled over a box around the crop's middle, stage 5 over the whole crop, each to a few cells and to
length one: close to the features that pseudo-labels are made of. So what is learnt lies in them, not in the head,
which is small and thrown away. (One cell each teaches about as much, five by five too much to the head.)

May import: lesionary, torch, trainers.backbones, trainers.regions.
"""

import torch
from torch import Tensor, nn

from trainers.backbones import make_backbone
from trainers.regions import joined_features, stage_regions

COORDINATES: tuple[str, ...] = ("x", "y", "z")
"""Left to right in the image, front to back, head to foot; each 0 to 1 over the body."""

# Entries of vectors of length one are small; the head's first layer expects numbers about one.
_FEATURE_SCALE = 10.0


class PositionNet(nn.Module):
    """Crops to places in the body."""

    def __init__(self, backbone: str, hidden: int, grid: int) -> None:
        super().__init__()
        self.backbone = make_backbone(backbone)
        self.grid = grid
        self.head = nn.Sequential(
            nn.Linear(sum(self.backbone.channels) * grid**2, hidden), nn.ReLU(), nn.Linear(hidden, len(COORDINATES))
        )

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Places of the crops' middles.

        Args:
            images: (n, 3, side, side), 0…255.
            boxes: (n, 4) as x0, y0, x1, y1 in pixels, around the middle.

        Returns:
            (n, 3) float32: x, y, z.
        """
        height, width = images.shape[-2:]
        whole = boxes.new_tensor([0, 0, width, height]).expand(len(boxes), 4)
        regions = stage_regions(self.backbone, images, boxes, whole, grid=self.grid)
        with torch.autocast(images.device.type, enabled=False):
            # Half: the middle of the body, so that training begins from there.
            places: Tensor = 0.5 + self.head(_FEATURE_SCALE * joined_features(regions))
        return places
