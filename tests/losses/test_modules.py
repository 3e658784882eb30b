"""The loss modules: the function's value, a buffer that moves, a state_dict that loads."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from retinanet.errors import UserError
from retinanet.losses.functional import LossInputError, sigmoid_focal_loss, softmax_focal_loss
from retinanet.losses.modules import FocalLoss, SigmoidFocalLoss

LOGITS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
TARGET = LOGITS.argmax(dim=1) * (LOGITS[:, 0] > 0)
WEIGHTS = [0.5, 1.0, 2.0]
DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "mean_positives"])
def test_modules_equal_the_functions(reduction: str) -> None:
    options = {"gamma": 1.5, "alpha": WEIGHTS, "reduction": reduction, "ignore_index": 1, "label_smoothing": 0.1}
    for background in (0, 2):
        found = FocalLoss(**options, background=background)(LOGITS, TARGET)
        assert torch.equal(found, softmax_focal_loss(LOGITS, TARGET, **options, background=background))
    hot = (LOGITS > 1).float()
    for alpha in (0.25, 0, 1, None):
        module = SigmoidFocalLoss(alpha=alpha, gamma=1.5, reduction=reduction)
        expected = sigmoid_focal_loss(LOGITS, hot, alpha=alpha, gamma=1.5, reduction=reduction)
        assert torch.equal(module(LOGITS, hot), expected)


def test_defaults_are_the_functions_and_the_papers() -> None:
    assert torch.equal(FocalLoss()(LOGITS, TARGET), softmax_focal_loss(LOGITS, TARGET, gamma=2))
    hot = (LOGITS > 1).long()
    assert torch.equal(SigmoidFocalLoss()(LOGITS, hot), sigmoid_focal_loss(LOGITS, hot, alpha=0.25, gamma=2))


@pytest.mark.parametrize("device", DEVICES)
def test_alpha_moves_with_the_module(device: str) -> None:
    model = nn.ModuleDict({"softmax": FocalLoss(alpha=WEIGHTS), "sigmoid": SigmoidFocalLoss(), "none": FocalLoss()})
    assert {name for name, _ in model.named_buffers()} == {"softmax.alpha", "sigmoid.alpha"}
    assert not list(model.parameters())
    model.to(device)
    assert {buffer.device.type for buffer in model.buffers()} == {device}
    if device == "cuda":
        found = model["softmax"](LOGITS.to(device), TARGET.to(device))
        torch.testing.assert_close(found.cpu(), FocalLoss(alpha=WEIGHTS)(LOGITS, TARGET))


def test_alpha_applies_in_every_precision() -> None:
    """Also where the buffer's type is the logits' own, which some code takes for `already applied`."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        loss, logits = FocalLoss(alpha=WEIGHTS, reduction="none").to(dtype), LOGITS.to(dtype)
        assert loss.alpha.dtype == torch.float32
        plain = FocalLoss(reduction="none")(logits, TARGET)
        torch.testing.assert_close(loss(logits, TARGET), plain * torch.tensor(WEIGHTS, dtype=plain.dtype)[TARGET])


def test_state_dict_saves_and_loads_alpha() -> None:
    saved = io.BytesIO()
    torch.save(FocalLoss(alpha=WEIGHTS).state_dict(), saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    assert {name: values.tolist() for name, values in state.items()} == {"alpha": WEIGHTS}
    loss = FocalLoss(alpha=[1.0, 1.0, 1.0])
    loss.load_state_dict(state)
    assert torch.equal(loss(LOGITS, TARGET), FocalLoss(alpha=WEIGHTS)(LOGITS, TARGET))
    assert FocalLoss().state_dict() == {}
    assert SigmoidFocalLoss(alpha=None).state_dict() == {}
    assert SigmoidFocalLoss(alpha=0.75).state_dict()["alpha"].item() == 0.75
    with pytest.raises(RuntimeError, match="size mismatch"):
        FocalLoss(alpha=[1.0, 1.0]).load_state_dict(state)


def test_alpha_is_the_modules_own_copy() -> None:
    weights = torch.tensor(WEIGHTS)
    loss = FocalLoss(alpha=weights)
    before = loss(LOGITS, TARGET)
    weights.zero_()
    assert torch.equal(loss(LOGITS, TARGET), before)


def test_wrong_options_are_errors_at_use() -> None:
    with pytest.raises(UserError, match="give 3 weights"):
        FocalLoss(alpha=0.25)(LOGITS, TARGET)
    with pytest.raises(LossInputError, match="gamma must be"):
        SigmoidFocalLoss(gamma=-1.0)(LOGITS, LOGITS.sigmoid())
    with pytest.raises(LossInputError, match="alpha must be"):
        SigmoidFocalLoss(alpha=3.0)(LOGITS, LOGITS.sigmoid())


def test_repr_shows_the_options() -> None:
    assert "gamma=2, alpha=[0.5, 1.0, 2.0], reduction=mean" in repr(FocalLoss(alpha=WEIGHTS))
    assert repr(SigmoidFocalLoss(alpha=None)) == "SigmoidFocalLoss(alpha=None, gamma=2, reduction=mean)"


def test_wrong_options_are_refused_when_the_module_is_made() -> None:
    with pytest.raises(LossInputError, match="gamma must be a finite number"):
        FocalLoss(gamma=-1)
    with pytest.raises(LossInputError, match="did you mean `mean`"):
        SigmoidFocalLoss(reduction="men")  # type: ignore[arg-type]


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_weights_stay_float32_when_a_model_is_cast(cast: Callable[[nn.Module], nn.Module]) -> None:
    """0.1 in bfloat16 is 0.10009765625, which would be another loss."""
    model = nn.Sequential(nn.Linear(2, 2), FocalLoss(alpha=[0.1, 0.2]), SigmoidFocalLoss(alpha=0.1, weight=[0.3, 0.7]))
    cast(model)
    assert model[0].weight.dtype != torch.float32
    assert [(name, values.dtype) for name, values in model.named_buffers()] == [
        ("1.alpha", torch.float32),
        ("2.alpha", torch.float32),
        ("2.weight", torch.float32),
    ]
    assert torch.equal(model[2].alpha, torch.tensor(0.1))
    assert len(model[2].to("meta", torch.float16).state_dict()) == 2


def test_class_weights_and_ignored_labels_of_the_sigmoid_module() -> None:
    options = {"alpha": WEIGHTS[:1] * 3, "weight": [1.0, 2.0, 4.0], "ignore_index": 255, "reduction": "sum"}
    target = (LOGITS > 1).long()
    target[0, :, 0] = 255
    loss = SigmoidFocalLoss(**options)
    assert torch.equal(loss(LOGITS, target), sigmoid_focal_loss(LOGITS, target, gamma=2, **options))
    assert "weight=[1.0, 2.0, 4.0], ignore_index=255" in repr(loss)
    assert set(loss.state_dict()) == {"alpha", "weight"}
