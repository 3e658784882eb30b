"""The whole network: images in, raw class and box outputs out (paper Figure 3)."""

from collections.abc import Collection

from torch import Tensor, nn

from retinanet.model.backbone import Backbone
from retinanet.model.fpn import Fpn
from retinanet.model.heads import Head
from retinanet.structures import HeadOutputs


class RetinaNet(nn.Module):
    """Backbone, pyramid and two heads; independent of anchor boxes, losses and scores."""

    def __init__(
        self, backbone: Backbone, fpn: Fpn, class_head: Head, box_head: Head, frozen: Collection[str] = ()
    ) -> None:
        """frozen: names of the parts that do not train, in either mode."""
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.class_head = class_head
        self.box_head = box_head
        self.frozen = tuple(frozen)
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _frozen_parts(self) -> list[nn.Module]:
        return [part for name, part in self.named_children() if name in self.frozen]

    def train(self, mode: bool = True) -> "RetinaNet":
        """As nn.Module.train, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def forward(self, images: Tensor | list[Tensor]) -> HeadOutputs:
        """(B, 3, H, W) normalised float images of one canvas -> raw outputs, in training and evaluation alike.

        images: or the backbone's outputs for such images.
        """
        levels = self.fpn(self.backbone(images) if isinstance(images, Tensor) else images)
        return HeadOutputs(self.class_head(levels), self.box_head(levels))
