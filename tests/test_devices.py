"""Tensors of a GPU and of the host are not mixed; tested without a GPU by fake tensors, which have a device alone."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet.build.losses import build_criterion
from retinanet.build.network import build_anchor_spec, build_loss_and_model
from retinanet.build.rules import build_assign_rule, build_detect_rule, build_pixel_rule
from retinanet.config.schema import Config
from retinanet.data.transforms import joined, normalise
from retinanet.data.upload import to_device
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import assign_batch
from retinanet.detection.postprocess import BatchDetections, best_of_groups, first_detections, nms_together
from retinanet.distributed import Ranks
from retinanet.evaluation.evaluate import result_rows
from retinanet.losses.criterion import Divisor, StepPositives, criterion, image_seeds, move_running, normaliser
from retinanet.structures import Batch, Detections, Targets
from retinanet.training.batches import load_data, load_steps

Tiny = Callable[..., Config]
GPU = torch.device("cuda", 0)
ALONE = Ranks(0, 0, 1)
KINDS = (
    *("focal", "focal_star", "cross_entropy", "balanced_cross_entropy", "ghm", "quality_focal", "varifocal"),
    *("softmax_cross_entropy", "softmax_focal", "sampled"),
)
"""Losses whose control flow does not depend on values."""


class Fakes:
    """Converts tensors to fake ones on the same device."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(shape_env=ShapeEnv())

    def of(self, tensor: Tensor) -> Tensor:
        return self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def batch(self, batch: Batch) -> Batch:
        targets = [Targets(*map(self.of, image_targets)) for image_targets in batch.targets]
        return Batch(*map(self.of, batch[:4]), targets)


class Uploads(TorchDispatchMode):
    """Counts copies from the host to a device; within it, other modes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "_to_copy":
            self.count += args[0].device.type == "cpu" and result.device.type == "cuda"
        return result


def first_batch(config: Config) -> Batch:
    with closing(load_steps(config, load_data(config, ALONE)[0], (0, 1), ALONE, pin=False)) as loading:
        return next(loading)[0]


def test_mixed_devices_are_noticed() -> None:
    with Fakes().mode, pytest.raises(RuntimeError, match=r"same device|two different devices"):
        torch.zeros(3) + torch.zeros(3, device=GPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "normalised_by"),
    [*((kind, "batch_positives") for kind in KINDS), ("focal", "image_positives"), ("focal", "running_positives")],
)
def test_losses_of_a_batch_are_computed_on_the_gpu(kind: str, normalised_by: str, tiny: Tiny) -> None:
    kinds = (
        f"loss.classification.kind={kind}",
        f"loss.normaliser={normalised_by}",
        "loss.box.kind=ciou",
        "loss.kernels=plain",
    )
    config = tiny(*kinds, "assign.low_quality=true", "model.backbone.name=resnet18", "model.backbone.norm=frozen_bn")
    loaded, fakes = first_batch(config), Fakes()
    seeds_B = fakes.of(image_seeds(0, 0, loaded.image_ids_B.tolist()))
    _, model = build_loss_and_model(config, 3)
    weights = {name: fakes.of(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    host = fakes.batch(loaded)
    with fakes.mode:
        on_gpu = {name: tensor.to(GPU) for name, tensor in weights.items()}
    with fakes.mode, Uploads() as uploads:
        batch = to_device(host, GPU)
        pixels = normalise(batch.images, batch.sizes_B2, build_pixel_rule(config), channels_last=True)
        outputs = functional_call(model, on_gpu, (pixels,))
        canvas = (pixels.shape[2], pixels.shape[3])
        pyramid = pyramid_anchors.__wrapped__(canvas, build_anchor_spec(config.model), GPU)
        assignment = assign_batch(pyramid, batch.targets, build_assign_rule(config))
        positives_R = assignment.positives().sum(dim=0, keepdim=True)
        running_R = move_running(torch.ones(1, device=GPU), positives_R)
        counted = StepPositives(ranks_R=positives_R, running_R=running_R, rank=0, images=len(batch.targets))
        divisor = Divisor(normaliser(config.loss.normaliser, assignment.positives(), counted), counted.images)
        losses = criterion(outputs, assignment, pyramid.boxes_A4, build_criterion(config), divisor, seeds_B)
    assert {tensor.device for tensor in (*losses, losses.total(), losses.sums(), losses.finite())} == {GPU}
    assert uploads.count <= 12


@pytest.mark.parametrize("normalised_by", ["batch_positives", "image_positives"])
def test_a_batch_of_any_size_goes_to_the_gpu_in_two_copies(normalised_by: str, tiny: Tiny) -> None:
    config = tiny(f"loss.normaliser={normalised_by}", "loss.class_weights=[1,2,3]")
    loaded, fakes = first_batch(config), Fakes()
    host = fakes.batch(joined([loaded] * (16 // len(loaded.targets))))
    with fakes.mode, Uploads() as uploads:
        batch = to_device(host, GPU)
        assert uploads.count == 2
        normalise(batch.images, batch.sizes_B2, build_pixel_rule(config), channels_last=True)
        pyramid = pyramid_anchors.__wrapped__((64, 64), build_anchor_spec(config.model), GPU)
        assignment = assign_batch(pyramid, batch.targets, build_assign_rule(config))
    assert len(batch.targets) == 16
    assert {tensor.device for tensor in (*batch[:4], *(t for targets in batch.targets for t in targets))} == {GPU}
    for sent, given in zip(batch.targets, host.targets, strict=True):
        assert [(t.shape, t.dtype) for t in sent] == [(t.shape, t.dtype) for t in given]
    assert assignment.labels_BA.device == GPU
    assert uploads.count <= 8


@pytest.mark.filterwarnings("ignore:`create_unbacked_symint`:FutureWarning")  # by torchvision's fake NMS
def test_detections_leave_the_gpu_in_one_copy(tiny: Tiny) -> None:
    """From the candidates on: their number depends on values, which a fake tensor does not have."""
    rule = build_detect_rule(tiny())
    counts = [40, 0, 30]
    with Fakes().mode:
        images_N = torch.tensor([0] * 40 + [2] * 30).to(GPU)
        found = BatchDetections(
            boxes_N4=torch.rand((70, 4), device=GPU),
            scores_N=torch.rand(70, device=GPU),
            classes_N=torch.zeros(70, dtype=torch.int64, device=GPU),
            images_N=images_N,
            counts=counts,
        )
        kept_N = nms_together(found, slice(0, 70), 3, rule)
        best_N = best_of_groups(found.scores_N, images_N, counts, 20)
        first = first_detections(found, [20, 20, 20])
        assert {kept_N.device, best_N.device, *(column.device for column in first[:4])} == {GPU}
        images = [Detections(*of_image) for of_image in zip(*(column.split(counts) for column in found[:3]))]
        rows_N7 = result_rows(torch.arange(3), images)
    assert rows_N7.device == torch.device("cpu")
    assert rows_N7.shape == (70, 7)
