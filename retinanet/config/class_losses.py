"""Config keys of `loss.classification`, one section for each kind, and of `loss.box`.

The losses themselves are in `retinanet/losses/`; `build/losses.py` goes from these keys to functions. A new kind is
its keys and its line in `AnyClassLossKeys` here, its function in `losses/`, its case in
`build.losses.build_class_loss`, and a test.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from retinanet.config.fields import Count, Fraction, NonNegative, Positive, Section


class ClassLossKeys(Section):
    """Keys that every kind of `loss.classification` has."""

    kind: str
    weight: NonNegative = Field(1.0, description="Multiplier of the class loss in the total.")


class FocalKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind focal."""

    kind: Literal["focal"] = Field("focal", description="Class loss.")
    alpha: Fraction = Field(0.25, description="Weight of positives, 1 - alpha of negatives.")
    gamma: NonNegative = Field(2.0, description="Focusing parameter: 0 is balanced cross entropy.")


class FocalStarKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind focal_star."""

    kind: Literal["focal_star"] = Field("focal_star", description="Class loss.")
    gamma: Positive = Field(2.0, description="Steepness (paper Table 3: 2 with beta 1, 4 with beta 0).")
    beta: float = Field(1.0, description="Shift: a larger one forgives sooner what is nearly right.")
    alpha: Fraction = Field(0.25, description="Weight of positives, 1 - alpha of negatives.")


class CrossEntropyKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind cross_entropy."""

    kind: Literal["cross_entropy"] = Field("cross_entropy", description="Class loss.")


class BalancedCrossEntropyKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind balanced_cross_entropy."""

    kind: Literal["balanced_cross_entropy"] = Field("balanced_cross_entropy", description="Class loss.")
    alpha: Fraction = Field(0.75, description="Weight of positives, 1 - alpha of negatives (paper Table 1a: 0.75).")


class HardMiningKeys(ClassLossKeys):
    """Keys that `ohem` and `ohem_1_3` share. The paper leaves open all but the first two."""

    batch: Count = Field(128, description="Most anchors kept of an image (paper Table 1d: 128, 256, 512; best 128).")
    nms_iou: Fraction = Field(
        0.5,
        description="IoU over which the easier of two anchors is dropped (Table 1d: 0.7 as Shrivastava et al., or 0.5, "
        "the best); 1 drops none.",
    )
    ranking: Literal["class", "class_and_box"] = Field(
        "class",
        description="Hardness of an anchor: its cross entropy, or that and a positive's weighted box loss.",
    )
    nms_scope: Literal["agnostic", "class"] = Field(
        "agnostic", description="NMS among all anchors, or only among those whose best-scoring class is the same."
    )
    normaliser: Literal["positives", "kept"] = Field(
        "positives",
        description="positives: divide as the box loss is divided, which keeps the two-stage detectors' ratio of class "
        "to box loss and the scale of the dense losses; kept: by the anchors kept of the image, then the mean over "
        "images.",
    )
    ignored: Literal["drop", "background"] = Field(
        "drop",
        description="Anchors that the assignment ignores (between its two thresholds, and in crowds): out of the "
        "ranking, or background as in two-stage detectors.",
    )


class OhemKeys(HardMiningKeys):
    """Keys of `loss.classification` with kind ohem."""

    kind: Literal["ohem"] = Field("ohem", description="Class loss.")


NEGATIVES_PER_POSITIVE = 3
"""SSD's ratio (arXiv 1512.02325, section 2.2), which the paper takes for its "OHEM 1:3"."""


class Ohem13Keys(HardMiningKeys):
    """Keys of `loss.classification` with kind ohem_1_3."""

    kind: Literal["ohem_1_3"] = Field("ohem_1_3", description="Class loss.")
    batch: Annotated[int, Field(ge=1 + NEGATIVES_PER_POSITIVE)] = Field(
        128,
        description="Most anchors kept of an image (paper Table 1d: 128, 256, 512; best 128): at most a quarter of "
        "them positive, at most three negatives to each; an image without positives keeps none.",
    )


class SampledKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind sampled."""

    kind: Literal["sampled"] = Field("sampled", description="Class loss.")
    batch: Count = Field(256, description="Anchors drawn from an image.")
    positive_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="At most this part of them positive, the rest negative: 0.5 is 1:1, 0.25 is 1:3. Negatives fill up "
        "for missing positives.",
    )
    normaliser: Literal["positives", "kept"] = Field(
        "positives",
        description="positives: divide as the box loss is divided, which keeps the two-stage detectors' ratio of class "
        "to box loss (they divide both by the minibatch); kept: by the anchors drawn from the image, then the mean "
        "over images.",
    )


class GhmKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind ghm."""

    kind: Literal["ghm"] = Field("ghm", description="Class loss.")
    bins: Count = Field(30, description="Unit regions of the gradient norm's histogram over 0..1 (the paper's M).")


class QualityFocalKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind quality_focal."""

    kind: Literal["quality_focal"] = Field("quality_focal", description="Class loss.")
    beta: NonNegative = Field(2.0, description="Exponent of the distance |IoU - score|: 0 is plain cross entropy.")


class VarifocalKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind varifocal."""

    kind: Literal["varifocal"] = Field("varifocal", description="Class loss.")
    alpha: NonNegative = Field(0.75, description="Weight of negatives; positives weigh their IoU.")
    gamma: NonNegative = Field(2.0, description="Focusing parameter of negatives.")


ClassWeights = Fraction | tuple[NonNegative, ...] | None


ALPHA = "null, one number (classes get alpha, background 1 - alpha), or K + 1 weights, background last."


class SoftmaxCrossEntropyKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind softmax_cross_entropy."""

    kind: Literal["softmax_cross_entropy"] = Field("softmax_cross_entropy", description="Class loss.")
    alpha: ClassWeights = Field(None, description=f"Weights: {ALPHA}")


class SoftmaxFocalKeys(ClassLossKeys):
    """Keys of `loss.classification` with kind softmax_focal."""

    kind: Literal["softmax_focal"] = Field("softmax_focal", description="Class loss.")
    alpha: ClassWeights = Field(0.25, description=f"Weights: {ALPHA}")
    gamma: NonNegative = Field(2.0, description="Focusing parameter: 0 is weighted cross entropy.")


class OwnLossKeys(ClassLossKeys, extra="allow"):
    """Keys of `loss.classification` with a function of the user as kind; further keys are its arguments."""

    # `config.own_loss` checks those against the function. Checkpoints have no `file`, so that they run no code.

    kind: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] = Field(
        description="A function in a file of one's own, such as my_losses:poly."
    )
    file: str | None = Field(
        None, exclude=True, description="That file; null: found in the working folder or next to the config."
    )
    source_sha256: str | None = Field(
        None, description="Hash of that file, written by the program: a run is not continued with another one."
    )

    def options(self) -> dict[str, Any]:
        """The arguments of the function."""
        return dict(self.model_extra or {})


class BoxLossKeys(Section):
    """Keys of `loss.box`."""

    kind: Literal["l1", "smooth_l1", "giou", "diou", "ciou"] = Field("smooth_l1", description="Box loss of positives.")
    beta: Positive = Field(
        0.1111111111111111, description="Where smooth L1 turns from quadratic to linear (Detectron: 1/9)."
    )
    weight: NonNegative = Field(1.0, description="Multiplier of the box loss in the total.")


def kind_of(options: Any) -> str | None:
    """Which kind a `loss.classification` means: focal unless it says another; None for what is no section."""
    if isinstance(options, dict):
        return str(options.get("kind", "focal"))
    return options.kind if isinstance(options, ClassLossKeys) else None


def is_own_kind(kind: object) -> bool:
    """Whether a kind names a function of the user."""
    return isinstance(kind, str) and ":" in kind


def _tag_of(options: Any) -> str | None:
    kind = kind_of(options)
    return "own" if is_own_kind(kind) else kind


AnyClassLossKeys = Annotated[
    Annotated[FocalKeys, Tag("focal")]
    | Annotated[CrossEntropyKeys, Tag("cross_entropy")]
    | Annotated[BalancedCrossEntropyKeys, Tag("balanced_cross_entropy")]
    | Annotated[FocalStarKeys, Tag("focal_star")]
    | Annotated[OhemKeys, Tag("ohem")]
    | Annotated[Ohem13Keys, Tag("ohem_1_3")]
    | Annotated[SampledKeys, Tag("sampled")]
    | Annotated[GhmKeys, Tag("ghm")]
    | Annotated[QualityFocalKeys, Tag("quality_focal")]
    | Annotated[VarifocalKeys, Tag("varifocal")]
    | Annotated[SoftmaxCrossEntropyKeys, Tag("softmax_cross_entropy")]
    | Annotated[SoftmaxFocalKeys, Tag("softmax_focal")]
    | Annotated[OwnLossKeys, Tag("own")],
    Discriminator(_tag_of),
]
"""Config `loss.classification`: the keys of one kind."""
