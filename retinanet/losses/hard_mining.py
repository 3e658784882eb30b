"""Online hard example mining over dense anchors (Shrivastava et al., arXiv 1604.03540; paper section 5.1, Table 1d).

Legend: B images, A anchors, K classes, 4 box coordinates or deltas, M kept anchors of all images; of one image:
C candidates, hardest first, S survivors of NMS among them, N boxes given to NMS.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from retinanet.detection import boxes
from retinanet.losses.cross_entropy import cross_entropy
from retinanet.losses.fused import DenseLoss
from retinanet.losses.sampled import Normaliser, minibatch_cross_entropy
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

FIRST_PREFIX = 4
"""Size of NMS's first prefix, in minibatches. Of 4 to 32, 4 was fastest at A = 178k; no result depends on it."""


class OhemRule(NamedTuple):
    """How anchors are ranked, suppressed, kept and normalised; the fields are the keys of `HardMiningKeys`."""

    batch: int
    nms_iou: float
    ranking: Literal["class", "class_and_box"]
    nms_scope: Literal["agnostic", "class"]
    normaliser: Normaliser
    ignored: Literal["drop", "background"]
    negatives_per_positive: int | None
    """None keeps the hardest of all anchors; n keeps at most n negatives per kept positive."""


def nms_survivors(boxes_N4: Tensor, groups_N: Tensor | None, iou: float) -> Tensor:
    """Ascending indices of the boxes that survive greedy NMS, earlier boxes first; within each group if given.

    All tensors are on the CPU. Each group has its own NMS: torchvision's batched_nms may shift groups apart by an
    offset instead, which rounds IoUs, and lets groups overlap if decoded coordinates are negative.
    """
    # Strictly decreasing scores, so that no tie is left to the kernel; float32 counts exactly up to 2^24 boxes.
    rank_N = torch.arange(len(boxes_N4), 0, -1, dtype=torch.float32)
    if groups_N is None:
        kept_S: Tensor = nms(boxes_N4, rank_N, iou).sort().values
        return kept_S
    survivors = []
    for group in groups_N.unique():
        members = (groups_N == group).nonzero().flatten()
        survivors.append(members[nms(boxes_N4[members], rank_N[members], iou)])
    return torch.cat([groups_N.new_empty(0), *survivors]).sort().values


class Ranked(NamedTuple):
    """The hardest candidates of one image, hardest first; on the CPU, where NMS decides box by box."""

    boxes_C4: Tensor
    """(C, 4) float32, predicted boxes."""
    groups_C: Tensor | None
    """(C,) int64, NMS is done within each group; None: one group."""
    positive_C: Tensor
    """(C,) bool."""

    def survivors_among(self, indices_N: Tensor, iou: float) -> Tensor:
        """Which of these candidates (ascending) survive an NMS among them alone."""
        groups_N = None if self.groups_C is None else self.groups_C[indices_N]
        return indices_N[nms_survivors(self.boxes_C4[indices_N], groups_N, iou)]

    def suppressed_by(self, easier_N: Tensor | slice, harder_M: Tensor | slice, iou: float) -> Tensor:
        """(N, M) bool: NMS drops the easier candidate where the harder one survives."""
        # torchvision's NMS compares in float64.
        over_NM = boxes.iou(self.boxes_C4[easier_N], self.boxes_C4[harder_M]).double() > iou
        if self.groups_C is not None:
            over_NM &= self.groups_C[easier_N][:, None] == self.groups_C[harder_M]
        return over_NM

    def rivals(self, candidate: int, iou: float) -> list[int]:
        """Harder candidates whose survival would suppress this one, easiest first."""
        x1, y1, x2, y2 = self.boxes_C4[:candidate].unbind(dim=1)
        left, top, right, bottom = self.boxes_C4[candidate].unbind()
        # Boxes that do not meet, nearly all, have IoU 0, which is above no threshold.
        meeting_N = ((x1 < right) & (x2 > left) & (y1 < bottom) & (y2 > top)).nonzero().flatten()
        own = slice(candidate, candidate + 1)
        rival_N: list[int] = meeting_N[self.suppressed_by(own, meeting_N, iou)[0]].flip(0).tolist()
        return rival_N


def survives(candidate: int, ranked: Ranked, iou: float, fate: dict[int, bool]) -> bool:
    """Whether a candidate survives NMS among all candidates, by deciding only those that its own fate depends on.

    A candidate survives if none of its rivals does. These are decided hardest first: the harder, the fewer rivals they
    have themselves. fate: known results, candidate -> survives; new ones are added.
    """
    rivals = {candidate: ranked.rivals(candidate, iou)}
    undecided = [candidate]
    while undecided:
        current = undecided[-1]
        remaining = rivals[current]
        while remaining and fate.get(remaining[-1]) is False:
            remaining.pop()
        if remaining and remaining[-1] not in fate:
            undecided.append(remaining[-1])
            rivals[remaining[-1]] = ranked.rivals(remaining[-1], iou)
        else:
            fate[current] = not remaining
            undecided.pop()
    return fate[candidate]


def hardest_positives(ranked: Ranked, survivors_S: Tensor, prefix: int, iou: float, most: int) -> Tensor:
    """The hardest `most` positives that survive NMS among all candidates: ascending indices.

    survivors_S: survivors of NMS among the first `prefix` candidates. Later, easier positives are decided one by one,
    since NMS down to their rank may mean NMS of all anchors.
    """
    found = survivors_S[ranked.positive_C[survivors_S]][:most]
    later = ranked.positive_C[prefix:].nonzero().flatten() + prefix
    if len(found) == most or len(later) == 0:
        return found
    fate = dict.fromkeys(range(prefix), False) | dict.fromkeys(survivors_S.tolist(), True)
    hopeful = later[~ranked.suppressed_by(later, survivors_S, iou).any(dim=1)]
    more: list[int] = []
    for candidate in hopeful.tolist():
        if len(found) + len(more) == most:
            break
        if survives(candidate, ranked, iou, fate):
            more.append(candidate)
    return torch.cat([found, found.new_tensor(more)])


def mine(ranked: Ranked, rule: OhemRule) -> Tensor:
    """Indices of the kept candidates of one image.

    Without a ratio: the `batch` hardest survivors of NMS. With n negatives to a positive: the batch / (1 + n)
    hardest surviving positives, and the hardest surviving negatives, at most n to each of these (SSD).

    Greedy NMS decides a box by harder boxes only, so the survivors of a prefix are the survivors of the whole that lie
    in it, and those of a longer prefix follow from an NMS of them and the newcomers. The prefix grows until it contains
    enough or everything: the result is exactly that of NMS among all candidates.
    """
    everyone_C = torch.arange(len(ranked.boxes_C4))
    length = FIRST_PREFIX * rule.batch
    survivors_S = ranked.survivors_among(everyone_C[:length], rule.nms_iou)
    positives, wanted, eligible_C = everyone_C[:0], rule.batch, torch.ones_like(ranked.positive_C)
    if rule.negatives_per_positive is not None:
        most = rule.batch // (1 + rule.negatives_per_positive)
        positives = hardest_positives(ranked, survivors_S, length, rule.nms_iou, most)
        wanted, eligible_C = rule.negatives_per_positive * len(positives), ~ranked.positive_C
    while True:
        others = survivors_S[eligible_C[survivors_S]][:wanted]
        newcomers = everyone_C[length : 2 * length]
        if len(others) == wanted or len(newcomers) == 0:
            return torch.cat([positives, others])
        survivors_S = ranked.survivors_among(torch.cat([survivors_S, newcomers]), rule.nms_iou)
        length *= 2


@torch.no_grad()
def hardest(
    logits_BAK: Tensor, labels_BA: Tensor, targets: ClassTargets, rule: OhemRule, hardness: DenseLoss
) -> tuple[Tensor, Tensor]:
    """Which anchors are kept: image_M, anchor_M, ascending. Equal losses are ranked by anchor index.

    labels_BA: (B, A) int64; IGNORE anchors are neither kept nor suppress others. Host-device syncs: one for all images,
    two if too few of the first candidates of some image survive.
    """
    ranking_BA = hardness(logits_BAK, labels_BA)
    if rule.ranking == "class_and_box":
        # Not by index, which would be one more sync.
        box_BA = torch.zeros_like(ranking_BA)
        ranking_BA = ranking_BA + box_BA.masked_scatter(targets.labels_BA >= 0, targets.box_loss_P.to(box_BA.dtype))
    ranking_BA = ranking_BA.masked_fill(labels_BA == IGNORE, -torch.inf)
    order_BA = ranking_BA.argsort(dim=1, descending=True, stable=True)
    images, anchors = labels_BA.shape
    length = anchors if rule.negatives_per_positive is not None else min(anchors, FIRST_PREFIX * rule.batch)
    ranked = read_ranked(logits_BAK, labels_BA, targets, order_BA[:, :length], rule)
    kept = [mine(image, rule) for image in ranked]
    if length < anchors and any(
        len(found) < rule.batch and len(image.positive_C) == length for found, image in zip(kept, ranked, strict=True)
    ):
        kept = [mine(image, rule) for image in read_ranked(logits_BAK, labels_BA, targets, order_BA, rule)]
    image_M = torch.arange(images).repeat_interleave(torch.tensor([len(found) for found in kept]))
    rows_2M = torch.stack([image_M, torch.cat(kept)]).to(order_BA.device, non_blocking=True)
    pairs_M = (rows_2M[0] * anchors + order_BA[rows_2M[0], rows_2M[1]]).sort().values
    return pairs_M // anchors, pairs_M % anchors


def read_ranked(
    logits_BAK: Tensor, labels_BA: Tensor, targets: ClassTargets, order_BC: Tensor, rule: OhemRule
) -> list[Ranked]:
    """The candidates of each image in the order of `order_BC`, in which ignored anchors come last, in one sync."""
    image_B1 = torch.arange(len(order_BC), device=order_BC.device)[:, None]
    boxes_BC4 = boxes.decode(targets.deltas_BA4[image_B1, order_BC].float(), targets.anchors_A4[order_BC])
    labels_BC = labels_BA[image_B1, order_BC]
    columns = [*boxes_BC4.unbind(dim=2), labels_BC.to(boxes_BC4)]
    if rule.nms_scope == "class":
        columns.append(logits_BAK.argmax(dim=-1)[image_B1, order_BC].to(boxes_BC4))
    # Column by column, so that each is contiguous to the search for rivals; float32 is exact for labels.
    ranked = []
    for columns_5C in torch.stack(columns, dim=1).cpu():
        candidates = int((columns_5C[4] != IGNORE).sum())
        ranked.append(
            Ranked(
                boxes_C4=columns_5C[:4, :candidates].T,
                groups_C=columns_5C[5, :candidates].long() if rule.nms_scope == "class" else None,
                positive_C=columns_5C[4, :candidates] >= 0,
            )
        )
    return ranked


def ohem(logits_BAK: Tensor, targets: ClassTargets, rule: OhemRule, hardness: DenseLoss = cross_entropy) -> Tensor:
    """Cross entropy of each image's hardest anchors after NMS, normalised, 0 elsewhere: (B, A) float32.

    hardness: `cross_entropy` or a faster equivalent; the hardness of an anchor is its detached sum over the classes,
    with `class_and_box` plus targets.box_loss_P. NMS runs over the predicted boxes, decoded from targets.deltas_BA4,
    harder anchors first. The selection carries no gradient. The box loss remains that of all positives.
    """
    labels_BA = targets.labels_BA
    if rule.ignored == "background":
        labels_BA = torch.where(labels_BA == IGNORE, BACKGROUND, labels_BA)
    rows = hardest(logits_BAK, labels_BA, targets, rule, hardness)
    return minibatch_cross_entropy(logits_BAK, rows, labels_BA[rows], targets, rule.normaliser)
