"""The same steps and detections on the CPU and on the device.

python -m benchmarks.gpu.numerics cpu|cuda
Also: precisions, two runs compared to the bit, host-device synchronisations of a step, and the compiled focal loss.
"""

import copy
import math
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.contest import Precision
from benchmarks.machine import DTYPES
from benchmarks.project import build_training_of
from benchmarks.scenes import random_batch
from retinanet.build.network import prepare_torch
from retinanet.config.load import config_from_dict
from retinanet.config.schema import Config
from retinanet.evaluation.detector import build_detector
from retinanet.losses.divided import KernelFocal
from retinanet.losses.focal import focal
from retinanet.losses.fused import FusedLoss, focal_negative_margin, sigmoid_pass
from retinanet.run.interrupts import StopRequest
from retinanet.training.state import TrainState
from retinanet.training.step import StepParts, train_step

KINDS = (
    "focal",
    "ohem_1_3",
    "cross_entropy",
    "ohem",
    "sampled",
    "ghm",
    "quality_focal",
    "varifocal",
    "softmax_focal",
)
SMALL_KINDS = 2
"""The first of KINDS, on a CPU."""
CLASSES = 20
STEP_TOLERANCE = 2e-3
"""Largest relative difference of a step's losses and gradient norm between two devices."""
LOSS_TOLERANCE: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 4e-3, "float16": 1e-3}
"""Largest relative error of the compiled loss and its gradient, by the logits' type."""

CPU = torch.device("cpu")


class Checks:
    """Prints each check as it is made, and counts the bad ones."""

    def __init__(self) -> None:
        self.bad: list[str] = []

    def check(self, good: bool, what: str) -> None:
        """Record one check."""
        print(("ok   " if good else "BAD  ") + what, flush=True)
        if not good:
            self.bad.append(what)

    def run(self, what: str, function: Callable[[], None]) -> None:
        """Call a function that makes checks; if it raises, print the traceback and go on."""
        try:
            function()
        except Exception:  # a bad check, not the end of the others
            traceback.print_exc(limit=-4)
            self.check(False, f"{what}: raised")


class Setting(NamedTuple):
    """What is compared with the CPU, on which images."""

    device: torch.device
    canvas: tuple[int, int]
    """(height, width) of the images."""
    images: int
    checks: Checks


def main(name: str) -> int:
    """Make all checks. Returns 1 if one is bad."""
    small, checks = name == "cpu", Checks()
    if small:
        setting = Setting(device=CPU, canvas=(64, 96), images=2, checks=checks)
    else:
        setting = Setting(device=torch.device(name, 0), canvas=(256, 320), images=4, checks=checks)
    for kind in KINDS[:SMALL_KINDS] if small else KINDS:
        checks.run(kind, partial(compare_step, setting, kind))
    low: tuple[Precision, ...] = () if small else ("bfloat16", "float16")
    for precision in low:
        checks.run(precision, partial(take_low_precision_steps, setting, precision))
    for norm, frozen in (("frozen_bn", 2), ("bn", 0), ("gn", 0)):
        checks.run(norm, partial(compare_two_runs, setting, norm, frozen))
    for kind in () if small else ("focal", "ohem", "ohem_1_3", "sampled"):
        checks.run(f"{kind}, synchronisations", partial(print_synchronisations, setting, kind))
    checks.run("detections", partial(compare_detections, setting))
    for precision in ("float32", *low):
        for classes in (80,) if small else (80, 91):
            what = f"compiled focal loss, {precision} x {classes}"
            checks.run(what, partial(check_compiled_loss, setting, precision, classes))
            if not small:
                checks.run(f"own {what}", partial(check_kernel, setting, precision, classes))
    print(f"{len(checks.bad)} BAD: {checks.bad}" if checks.bad else "ALL RIGHT")
    return int(bool(checks.bad))


def build(
    setting: Setting,
    kind: str,
    device: torch.device,
    precision: Precision = "float32",
    norm: str = "frozen_bn",
    frozen: int = 2,
) -> tuple[Config, TrainState, StepParts]:
    """A small network with a class loss, the same initial weights on every device."""
    backbone = {"name": "resnet18", "weights": "none", "norm": norm, "frozen_stages": frozen}
    schedule = {
        "iterations": 100,
        "batch_size": setting.images,
        "reference_batch": setting.images,
        "lr": 1e-3,
        "warmup": 0,
    }
    config = config_from_dict(
        {
            "model": {"backbone": backbone, "fpn": {"channels": 64}, "head": {"depth": 1}},
            "assign": {"low_quality": True},
            "loss": {"classification": {"kind": kind}},
            "precision": precision,
            "schedule": {**schedule, "milestones": [], "optimizer": "adamw", "clip_norm": 10.0, "ema": 0.9},
        },
        "benchmarks/gpu/numerics.py",
    )
    prepare_torch(config)
    return config, *build_training_of(config, CLASSES, device)


def take_steps(setting: Setting, state: TrainState, parts: StepParts, count: int = 1) -> dict[str, float]:
    """The values of the last of `count` steps on one batch."""
    batch = random_batch(setting.canvas, setting.images, CLASSES)
    for _ in range(count):
        values = train_step(state, [batch], parts, StopRequest()).values
        state.progress = state.progress._replace(step=state.progress.step + 1)
    return values


def compare_step(setting: Setting, kind: str) -> None:
    """Losses and gradient norm of a first step on both devices."""
    cpu, other = (take_steps(setting, *build(setting, kind, one)[1:]) for one in (CPU, setting.device))
    keys = ("loss_class", "loss_box", "grad_norm")
    off = {key: abs(cpu[key] - other[key]) / max(abs(cpu[key]), 1e-6) for key in keys}
    text = ", ".join(f"{key} {value:.1e}" for key, value in off.items())
    good = max(off.values()) < STEP_TOLERANCE
    setting.checks.check(good, f"{kind}: CPU and {setting.device}, relative difference: {text}")


def take_low_precision_steps(setting: Setting, precision: Precision) -> None:
    """Five steps whose loss stays a number."""
    _, state, parts = build(setting, "focal", setting.device, precision)
    values = take_steps(setting, state, parts, 5)
    text = f"loss {values['loss']:.4f}, gradient {values['grad_norm']:.3f}, scale {state.scaler.get_scale():g}"
    setting.checks.check(math.isfinite(values["loss"]), f"{precision}: five steps, {text}")


def compare_two_runs(setting: Setting, norm: str, frozen: int) -> None:
    """Two runs of three steps; also with a stem that trains (max pooling's backward) and with batch statistics."""
    states = []
    precision: Precision = "float32" if setting.device == CPU else "bfloat16"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            _, state, parts = build(setting, "focal", setting.device, precision, norm, frozen)
            take_steps(setting, state, parts, 3)
            states.append(state.model.state_dict())
    first, second = states
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    text = f"{norm}, {frozen} frozen: two runs of three steps equal to the bit"
    setting.checks.check(not differ, text + (f"; {len(differ)} tensors differ, first {differ[0]}" if differ else ""))
    for message in sorted({str(one.message)[:150] for one in caught if "determin" in str(one.message)}):
        print("     warned:", message)


def print_synchronisations(setting: Setting, kind: str) -> None:
    """Where in a step the host waits for the GPU, by CUDA's own account."""
    _, state, parts = build(setting, kind, setting.device, "bfloat16")
    take_steps(setting, state, parts, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            take_steps(setting, state, parts)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = (f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchronizing" in str(one.message))
    at = Counter(places)
    print(f"     {kind}: {at.total()} synchronisations in a step: {dict(at.most_common(8))}")


def compare_detections(setting: Setting) -> None:
    """Detections of the same weights on both devices."""
    config, state, _ = build(setting, "focal", CPU)
    batch = random_batch(setting.canvas, setting.images, CLASSES)
    with torch.no_grad():  # scores apart, so that some pass the threshold
        state.model.get_parameter("class_head.predict.weight").mul_(60)
    found = []
    for one in (CPU, setting.device):
        detector = build_detector(config, copy.deepcopy(state.model).to(one), one)
        detector.prepare()
        found.append(detector._replace(rule=detector.rule._replace(score_threshold=0.02))(batch))
    counts = [[len(image.scores_D) for image in images] for images in found]
    pairs = zip(*found, strict=True)
    same = counts[0] == counts[1] and all(torch.allclose(a.scores_D, b.scores_D.cpu(), atol=1e-4) for a, b in pairs)
    text = f"detections on CPU and {setting.device}: {counts[0]} and {counts[1]}"
    setting.checks.check(same and sum(counts[0]) > 0, text)


def check_compiled_loss(setting: Setting, precision: Precision, classes: int) -> None:
    """The compiled focal loss and its gradient compared with the plain one in float64."""
    logits_NK = (torch.randn(30_000, classes) * 3).to(setting.device, DTYPES[precision]).requires_grad_()
    labels_N = torch.randint(-2, classes, (len(logits_NK),), device=setting.device)
    plain = partial(focal, alpha=0.25, gamma=2.0)
    loss = FusedLoss(plain, sigmoid_pass(partial(focal_negative_margin, gamma=2.0), 0.25, 0.75))
    exact_NK = logits_NK.detach().double().requires_grad_()
    found, right = loss(logits_NK, labels_N), plain(exact_NK, labels_N)
    (slope,), (right_slope,) = (torch.autograd.grad(v.sum(), x) for v, x in ((found, logits_NK), (right, exact_NK)))
    value_off, slope_off = relative_error(found, right), relative_error(slope, right_slope)
    good = loss.kernel is not None and not loss.refused and max(value_off, slope_off) < LOSS_TOLERANCE[precision]
    text = f"compiled focal loss, {precision} x {classes}: value {value_off:.1e}, gradient {slope_off:.1e}"
    setting.checks.check(good, text)


def check_kernel(setting: Setting, precision: Precision, classes: int) -> None:
    """The project's own kernel of the focal loss and its gradient compared with the plain one in float64."""
    logits_BAK = (torch.randn(2, 15_000, classes) * 3).to(setting.device, DTYPES[precision]).requires_grad_()
    labels_BA = torch.randint(-2, classes, logits_BAK.shape[:2], device=setting.device)
    normaliser_B, kernel = torch.tensor([3.0, 7.0], device=setting.device), KernelFocal(2.0, 0.25, 0.75)
    found = kernel(logits_BAK, labels_BA, normaliser_B)
    if found is None:
        setting.checks.check(False, f"own kernel of the focal loss, {precision} x {classes}: it did not run")
        return
    exact_BAK = logits_BAK.detach().double().requires_grad_()
    right = focal(exact_BAK, labels_BA, alpha=0.25, gamma=2.0) / normaliser_B.double()[:, None]
    (slope,), (right_slope,) = (torch.autograd.grad(v.sum(), x) for v, x in ((found, logits_BAK), (right, exact_BAK)))
    value_off, slope_off = relative_error(found, right), relative_error(slope, right_slope)
    text = f"own kernel of the focal loss, {precision} x {classes}: value {value_off:.1e}, gradient {slope_off:.1e}"
    setting.checks.check(max(value_off, slope_off) < LOSS_TOLERANCE[precision], text)


def relative_error(found: Tensor, right: Tensor) -> float:
    """Norm of the difference over the norm of what is right."""
    return float((found.detach().double() - right.detach()).norm() / right.detach().norm())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
