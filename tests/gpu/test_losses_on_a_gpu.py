"""Losses on the GPU compared with float64 on the CPU: the same logits, rounded to the type that a network gives."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks.gpu.losses import all_kinds
from benchmarks.gpu.numerics import CLASSES, Setting, check_compiled_loss, relative_error
from retinanet.build.losses import build_box_loss, build_class_loss
from retinanet.config.class_losses import AnyClassLossKeys, BoxLossKeys
from retinanet.losses.divided import KernelFocal
from retinanet.losses.focal import focal
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

IMAGES, ANCHORS = 2, 600
VALUE_TOLERANCE = 1e-5
"""Largest relative error of a loss, which is computed in float32 whatever the logits' type."""
GRADIENT_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}


def some_boxes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Boxes (..., 4) of 8 to 40 pixels."""
    corner = torch.rand((*shape, 2), generator=generator) * 200
    return torch.cat([corner, corner + 8 + torch.rand((*shape, 2), generator=generator) * 32], dim=-1)


def some_targets(classes: int) -> ClassTargets:
    """Targets on the CPU: most anchors are background, some are ignored, about 60 positive."""
    generator = torch.Generator().manual_seed(1)
    labels_BA = torch.randint(0, classes, (IMAGES, ANCHORS), generator=generator)
    kind_BA = torch.rand((IMAGES, ANCHORS), generator=generator)
    labels_BA[kind_BA > 0.05] = BACKGROUND
    labels_BA[kind_BA > 0.95] = IGNORE
    positives = int((labels_BA >= 0).sum())
    return ClassTargets(
        labels_BA=labels_BA,
        normaliser_B=torch.tensor([3.0, 7.0]),
        images=IMAGES,
        seeds_B=torch.tensor([5, 6]),
        anchors_A4=some_boxes((ANCHORS,), generator),
        deltas_BA4=torch.randn((IMAGES, ANCHORS, 4), generator=generator) * 0.2,
        boxes_P4=some_boxes((positives,), generator),
        box_loss_P=torch.rand(positives, generator=generator),
    )


def at(device: torch.device, targets: ClassTargets) -> ClassTargets:
    """Targets on a device; the seeds stay on the host."""
    moved = {name: v.to(device) for name, v in targets._asdict().items() if isinstance(v, Tensor) and name != "seeds_B"}
    return targets._replace(**moved)


def value_and_slope(loss: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A loss and the gradient of its sum, on the CPU."""
    (slope,) = torch.autograd.grad(loss.sum(), inputs)
    return loss.detach().cpu(), slope.cpu()


@pytest.mark.parametrize("dtype", list(GRADIENT_TOLERANCE), ids=str)
@pytest.mark.parametrize("kind", all_kinds())
def test_class_losses_equal_float64_on_the_cpu(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    keys = TypeAdapter(AnyClassLossKeys).validate_python({"kind": kind})
    exact, targets = build_class_loss(keys, kernels="plain"), some_targets(CLASSES)
    outputs = len(exact.prior_bias(0.01, CLASSES))
    generator = torch.Generator().manual_seed(2)
    logits = (torch.randn((IMAGES, ANCHORS, outputs), generator=generator) * 3 - 2).to(dtype)
    exact_logits = logits.double().requires_grad_()
    value, slope = value_and_slope(exact.value(exact_logits, targets), exact_logits)
    for kernels in ("plain", "auto"):
        own = logits.to(device).requires_grad_()
        found = value_and_slope(build_class_loss(keys, kernels=kernels).value(own, at(device, targets)), own)
        assert found[0].dtype == torch.float32
        assert relative_error(found[0], value) < VALUE_TOLERANCE, kernels
        assert relative_error(found[1], slope) < GRADIENT_TOLERANCE[dtype], kernels
        assert not found[1][targets.labels_BA == IGNORE].any() or kind in ("ohem", "ohem_1_3")


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_box_losses_equal_the_cpus(kind: str, device: torch.device) -> None:
    loss, generator = build_box_loss(BoxLossKeys(kind=kind)), torch.Generator().manual_seed(3)
    deltas, anchors = torch.randn((50, 4), generator=generator) * 0.3, some_boxes((50,), generator)
    wanted = some_boxes((50,), generator)
    cpu, own = deltas.clone().requires_grad_(), deltas.to(device).requires_grad_()
    value, slope = value_and_slope(loss(cpu, wanted, anchors), cpu)
    found = value_and_slope(loss(own, wanted.to(device), anchors.to(device)), own)
    assert relative_error(found[0], value) < 1e-5
    assert relative_error(found[1], slope) < 1e-4


@pytest.mark.parametrize("classes", [3, 80, 91])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("dtype", list(GRADIENT_TOLERANCE), ids=str)
def test_the_kernel_equals_the_plain_loss(
    dtype: torch.dtype, gamma: float, classes: int, device: torch.device, recwarn: pytest.WarningsRecorder
) -> None:
    targets = at(device, some_targets(classes))
    generator = torch.Generator().manual_seed(4)
    logits = (torch.randn((IMAGES, ANCHORS, classes), generator=generator) * 3).to(device, dtype)
    logits[targets.labels_BA == IGNORE] = torch.nan
    own, plain = logits.clone().requires_grad_(), logits.double().nan_to_num().requires_grad_()
    found = KernelFocal(gamma, 0.25, 0.75)(own, targets.labels_BA, targets.normaliser_B)
    if device.type == "cpu":
        assert found is None
        pytest.skip("the kernel needs a GPU; tests/losses/test_focal_kernel.py interprets it")
    assert found is not None, [str(warning.message) for warning in recwarn]
    value, slope = value_and_slope(found, own)
    exact = focal(plain, targets.labels_BA, alpha=0.25, gamma=gamma) / targets.normaliser_B.double()[:, None]
    right = value_and_slope(exact, plain)
    assert relative_error(value, right[0]) < VALUE_TOLERANCE
    assert relative_error(slope, right[1]) < GRADIENT_TOLERANCE[dtype]
    assert not slope[targets.labels_BA.cpu() == IGNORE].any()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_compiled_loss_equals_the_plain_one(precision: str, setting: Setting) -> None:
    check_compiled_loss(setting, precision, 80)
    assert not setting.checks.bad
