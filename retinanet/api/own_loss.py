"""`retinanet.check_loss`: whether a function of one's own can be a class loss."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from retinanet.build.losses import build_own_loss
from retinanet.config.class_losses import OwnLossKeys
from retinanet.config.load import with_values
from retinanet.config.schema import Config
from retinanet.errors import ConfigError
from retinanet.losses.check_own import CheckedLoss, check_function

__all__ = ["CheckedLoss", "check_loss"]


def check_loss(
    loss: str | Callable[..., Tensor], *, options: Mapping[str, Any] | None = None, classes: int = 3
) -> CheckedLoss:
    """Try a class loss of one's own: its value, its gradient, bfloat16, no positives, and all anchors ignored.

    loss: a function of (logits, targets) and options by keyword, or its name for config `loss.classification.kind`,
        such as "my_losses:poly", whose file is looked for in the working folder. logits: (N, K) float32, the outputs
        of all anchors that count; targets: (N, K), 1 at the class of a positive anchor, 0 elsewhere. It returns the
        loss of each output, (N, K), or of each anchor, (N,); the sum is divided by the number of positives.
    options: its further arguments. classes: K.

    A training makes the same check before its first step. Raises ConfigError that lists all that is wrong.
    """
    if not isinstance(loss, str):
        return check_function(getattr(loss, "__name__", type(loss).__name__), loss, classes, options or {})
    given = {f"loss.classification.{name}": value for name, value in (options or {}).items()}
    keys = with_values(Config(), {"loss.classification.kind": loss, **given}).loss.classification
    if not isinstance(keys, OwnLossKeys):
        raise ConfigError(f"check_loss: {loss} is a loss of this project; name a function, such as my_losses:poly")
    own = build_own_loss(keys)
    return check_function(f"{loss} in {keys.file}", own.function, classes, own.options)
