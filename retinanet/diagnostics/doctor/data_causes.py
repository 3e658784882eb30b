"""Causes of a low AP that the data prove, with the config and without the detector."""

from typing import Literal

from retinanet.diagnostics.doctor.facts import BoxFormat, Evidence, SplitFacts
from retinanet.structures import Category
from retinanet.training.causes import Finding

CLEARLY_OVER = 0.2
"""Part of the boxes that reach over the border from which they are not [x, y, width, height]."""
NEARLY_ALL = 0.99
LEAST_BOXES = 5
FEW_REACHED = 0.5
"""Part of the objects with a positive anchor below which anchors are a cause."""
POOR_FIT = 0.25
"""Mean best IoU below which even the best anchors are far from the objects."""
UNSEEN = 0.5
"""Part of val's objects, of classes without a training object, from which classes are a cause."""
LOST_OBJECTS = 0.1
"""Part of val's objects beyond the limit of detections from which it is a cause."""

CORNERS, FRACTIONS = "corners [x1, y1, x2, y2]", "fractions of the image's sides"


def empty_val(evidence: Evidence) -> Finding | None:
    """Val has nothing to find."""
    val = evidence.val
    if val is None or val.objects():
        return None
    return Finding(
        title="val has no object",
        proof=f"{val.file} has {val.images:,} images and no box that can be used, so AP is -1 (not measured).",
        remedy="data.val_annotations=FILE",
        advice="give annotations with objects:",
    )


def box_formats(evidence: Evidence) -> Finding | None:
    """The boxes of a split are not [x, y, width, height] in pixels."""
    splits: tuple[tuple[Literal["train", "val"], SplitFacts | None], ...] = (
        ("train", evidence.train),
        ("val", evidence.val),
    )
    wrong = [(name, split, read_as(split.boxes)) for name, split in splits if split is not None]
    wrong = [one for one in wrong if one[2]]
    if not wrong:
        return None
    proofs = []
    for name, split, kind in wrong:
        boxes = split.boxes
        why = (
            f"{boxes.over:,} of {boxes.boxes:,} boxes reach over the border of their image, but {boxes.as_corners:,} "
            "are within it as corners."
            if kind == CORNERS
            else f"{boxes.fractions:,} of {boxes.boxes:,} boxes have no number above 1."
        )
        proofs.append(f"{name} ({split.file}): {why}")
    return Finding(
        title=f"boxes of {' and '.join(name for name, _, _ in wrong)} are {wrong[0][2]}, not [x, y, width, height]",
        proof=" ".join(proofs),
        remedy="",
        advice="write bbox as [x, y, width, height] in pixels; `retinanet data check FILE` shows what is read.",
    )


def read_as(boxes: BoxFormat) -> str:
    """CORNERS or FRACTIONS for boxes in that format; empty for [x, y, width, height] and for few boxes."""
    if boxes.boxes < LEAST_BOXES:
        return ""
    if boxes.fractions >= NEARLY_ALL * boxes.boxes:
        return FRACTIONS
    if boxes.as_corners >= NEARLY_ALL * boxes.boxes and boxes.over >= CLEARLY_OVER * boxes.boxes:
        return CORNERS
    return ""


def other_categories(evidence: Evidence) -> Finding | None:
    """Val has classes that the detector does not have."""
    known, val = evidence.known, evidence.val
    names = {category.name for category in known or ()}
    if known is None or val is None or {category.name for category in val.categories} <= names:
        return None
    new = [category for category in val.categories if category.name not in names]
    return Finding(
        title="the classes of val are not those of the detector",
        proof=f"Only in {val.file}: {named(new)}.",
        remedy="data.val_annotations=FILE",
        advice="give val the names of the training data:",
    )


def unseen_classes(evidence: Evidence) -> Finding | None:
    """Most objects of val are of classes without a training object."""
    train, val = evidence.train, evidence.val
    if train is None or val is None or not val.objects():
        return None
    unseen = {
        name: count for name, count in val.objects_by_class.items() if count and not train.objects_by_class.get(name)
    }
    if sum(unseen.values()) < UNSEEN * val.objects():
        return None
    most = ", ".join(f"{name} {count:,}" for name, count in sorted(unseen.items(), key=lambda item: -item[1])[:4])
    return Finding(
        title="most objects of val are of classes that train has no object of",
        proof=f"{sum(unseen.values()):,} of {val.objects():,} objects in val, none in train: {most}.",
        remedy="retinanet data check FOLDER",
        advice="split the data so that train has every class; look at both with",
    )


def anchors_miss(evidence: Evidence) -> Finding | None:
    """Most objects have no positive anchor, or even their best anchors are far from them."""
    facts = evidence.anchors
    if facts is None:
        return None
    rule = evidence.run.config.assign
    rescued = rule.low_quality or rule.kind == "atss"
    share = facts.reached / facts.objects
    if share >= FEW_REACHED or (rescued and facts.mean_iou >= POOR_FIT):
        return None
    then = (
        "assign.kind: atss selects anchors for the others, however low their IoU"
        if rule.kind == "atss"
        else "assign.low_quality gives the others their best anchor, however far it is"
        if rule.low_quality
        else "the others are never learned, since assign.low_quality is off"
    )
    proof = f"{facts.reached:,} of {facts.objects:,} training objects have an anchor of IoU {facts.positive_iou:g} or"
    proof += f" more (mean best IoU {facts.mean_iou:.2f}); {then}."
    if facts.suggestion:
        proof += f" With the anchors below it is {facts.suggested_reached:,}."
    return Finding(
        title="the anchors do not reach the objects",
        proof=proof,
        remedy=facts.suggestion or "assign.low_quality=true",
    )


def detections_limited(evidence: Evidence) -> Finding | None:
    """Images have more objects than the detector may keep."""
    val, limit = evidence.val, evidence.run.config.eval.detections
    if val is None or not val.objects():
        return None
    lost = int((val.objects_I - limit).clip(0).sum())
    if lost < LOST_OBJECTS * val.objects():
        return None
    images, most = int((val.objects_I > limit).sum()), int(val.objects_I.max())
    return Finding(
        title="the detector keeps fewer detections than there are objects",
        proof=f"{images:,} of {val.images:,} val images have more than {limit} objects, up to {most:,}: at least "
        f"{lost:,} of {val.objects():,} objects cannot be found.",
        remedy=f"eval.detections={-(-most // 100) * 100 if most > 100 else most}",
    )


def named(categories: list[Category]) -> str:
    """A few categories as `3 dog`."""
    more = f" and {len(categories) - 4} more" if len(categories) > 4 else ""
    return ", ".join(f"{category.id} {category.name}" for category in categories[:4]) + more
