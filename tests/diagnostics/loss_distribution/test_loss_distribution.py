"""Loss distributions: curves by hand, samples compared with the training criterion, and the choice of losses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from retinanet.build.losses import build_class_loss, build_criterion
from retinanet.build.rules import build_assign_rule, build_resize_rule
from retinanet.config.class_losses import (
    BalancedCrossEntropyKeys,
    CrossEntropyKeys,
    FocalKeys,
    SoftmaxCrossEntropyKeys,
    SoftmaxFocalKeys,
)
from retinanet.config.schema import Config
from retinanet.data.coco import load_coco
from retinanet.data.loader import eval_batches
from retinanet.data.transforms import normalise
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import assign_batch
from retinanet.diagnostics.loss_distribution import samples as sampling
from retinanet.diagnostics.loss_distribution.curves import (
    Breakdown,
    cumulative_loss,
    distribution_of,
    effective_number,
    half_fraction,
    part_of_easiest,
)
from retinanet.diagnostics.loss_distribution.draw import build_measure, draw_loss_distribution
from retinanet.diagnostics.loss_distribution.losses import build_losses, default_losses, name_losses
from retinanet.diagnostics.loss_distribution.plot import commonest
from retinanet.diagnostics.loss_distribution.samples import LossSamples, ThinnedLosses, original_areas, sample_losses
from retinanet.errors import ConfigError, DataError, NumericalError
from retinanet.evaluation.saved import load_detector
from retinanet.losses.criterion import Divisor, criterion
from retinanet.run.checkpoint import load_checkpoint, save_checkpoint


def test_a_curve_by_hand() -> None:
    cumulative = cumulative_loss(np.array([3.0, 0.0, 1.0], dtype=np.float32))
    assert cumulative.tolist() == [0, 0, 0.25, 1]
    assert part_of_easiest(cumulative, np.array([0, 1 / 3, 0.5, 2 / 3, 5 / 6, 1])) == pytest.approx(
        [0, 0, 0.125, 0.25, 0.625, 1]
    )
    # The hardest of three carries 3/4 of the loss, so two thirds of it carry half.
    assert half_fraction(cumulative) == pytest.approx(2 / 9)
    spread = distribution_of(np.array([3.0, 0.0, 1.0])).spread
    assert spread.samples == 3
    assert spread.mean == pytest.approx(4 / 3)
    assert spread.hardest == pytest.approx((0.00225, 0.0225, 0.45))
    assert spread.effective == pytest.approx(4 / 3**0.75)


def test_a_curve_runs_from_nothing_to_everything_whatever_the_order_or_scale() -> None:
    losses = np.random.default_rng(0).exponential(size=5000).astype(np.float32) ** 3
    curve = distribution_of(losses, points=300).curve
    assert 250 <= len(curve.fraction_M) <= 300
    for values in curve:
        assert values[[0, -1]].tolist() == [0, 1]
    assert (np.diff(curve.fraction_M) > 0).all()
    slope = np.diff(curve.cumulative_M) / np.diff(curve.fraction_M)
    assert (np.diff(slope) > -1e-6).all(), "sorted by increasing loss, so it bends upwards"
    again = distribution_of(np.random.default_rng(1).permutation(losses) * 512, points=300).curve
    np.testing.assert_allclose(again.cumulative_M, curve.cumulative_M, atol=1e-12)
    hardest_ten = np.sort(losses)[-10:].sum(dtype=np.float64) / losses.sum(dtype=np.float64)
    assert 1 - np.interp(1 - 10 / 5000, *curve) == pytest.approx(hardest_ten, rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_equal_losses_are_a_straight_line(count: int) -> None:
    losses = np.full(count, 0.1, dtype=np.float32)
    curve = distribution_of(losses).curve
    np.testing.assert_allclose(curve.cumulative_M, curve.fraction_M, atol=1e-12)
    assert effective_number(losses) == pytest.approx(count)
    assert half_fraction(cumulative_loss(losses)) == pytest.approx(0.5)
    assert effective_number(np.append(losses[:1], np.zeros(count))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("losses", "why"),
    [([], "no samples"), ([0.0, 0.0], "zero"), ([1.0, -0.1], "negative"), ([1.0, np.inf], "finite"), ([np.nan], "fin")],
)
def test_losses_without_a_distribution_are_refused(losses: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        distribution_of(np.array(losses, dtype=np.float32))


def test_thinning_is_bounded_uniform_and_repeatable() -> None:
    def thin() -> tuple[ThinnedLosses, np.ndarray]:
        thinned = ThinnedLosses(1000, (3, 1))
        for start in range(0, 20_000, 50):
            thinned.add(np.stack([np.arange(start, start + 50), -np.arange(start, start + 50)]).astype(np.float32))
        return thinned, thinned.columns(2)

    thinned, columns = thin()
    assert thinned.seen == 20_000
    assert 600 < columns.shape[1] <= 1500
    assert (columns[0] == -columns[1]).all()
    quarters = np.histogram(columns[0], bins=4, range=(0, 20_000))[0] / columns.shape[1]
    assert np.abs(quarters - 0.25).max() < 0.06, "early and late ones stay with the same chance"
    np.testing.assert_array_equal(thin()[1], columns)
    few = ThinnedLosses(1000, (0,))
    few.add(np.ones((2, 1500), dtype=np.float32))
    assert few.columns(2).shape == (2, 1500), "nothing is dropped without need"


def test_object_sizes_are_those_of_the_stored_image() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 15, 10]])
    areas = original_areas(boxes, torch.tensor([[50, 100], [80, 80]]), torch.tensor([[100, 200], [40, 160]]))
    assert areas.tolist() == pytest.approx([800, 50])


def test_the_picture_shows_the_commonest_classes() -> None:
    whole = Breakdown.empty("positives", "class", ("a", "b", "c", "d"), losses=1)
    whole.add(np.ones((1, 11), np.float32), np.repeat([0, 1, 3], [1, 5, 5]))
    assert commonest(whole, 3) == [1, 3, 0]


def test_losses_are_read_from_words_or_yaml() -> None:
    assert build_losses(["focal", "kind=focal, gamma=0.5,alpha=0.75", "{kind: cross_entropy}", "gamma=1"]) == [
        FocalKeys(),
        FocalKeys(gamma=0.5, alpha=0.75),
        CrossEntropyKeys(),
        FocalKeys(gamma=1.0),
    ]
    assert build_losses(["softmax_focal,alpha=[1, 2, 0.5]"]) == [SoftmaxFocalKeys(alpha=(1.0, 2.0, 0.5))]


def test_a_loss_of_the_users_own_is_named_with_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def f(logits, targets, *, a: float = 1.0, b: int = 2): ...", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = build_losses(['kind: "mine:f", a: 3', '{kind: "mine:f"}'])
    assert list(name_losses(found)) == ["mine:f a 3 b 2", "mine:f a 1 b 2"]
    with pytest.raises(ConfigError, match=r"--loss .*: loss\.classification\.c: unknown key"):
        build_losses(['kind: "mine:f", c: 3'])


def test_all_losses_that_cannot_be_read_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        build_losses(["focal,gama=2", "hinge", "focal,alpha=2", "focal", "kind=focal,gamma=[1"])
    message = str(caught.value)
    for part in ("'focal,gama=2'", "gamma?", "'hinge'", "one of focal", "'focal,alpha=2'", "from 0 to 1", "gamma=[1"):
        assert part in message
    assert "'focal'" not in message


def test_the_papers_gammas_with_the_checkpoints_alpha() -> None:
    assert [
        (loss.alpha, loss.gamma) for loss in default_losses(FocalKeys(alpha=0.5, gamma=3.0)) if loss.kind == "focal"
    ] == [(0.5, gamma) for gamma in (0.0, 0.5, 1.0, 2.0)]
    assert default_losses(BalancedCrossEntropyKeys())[1] == FocalKeys(alpha=0.75, gamma=0.5)
    assert default_losses(CrossEntropyKeys())[3] == FocalKeys()
    assert default_losses(SoftmaxCrossEntropyKeys(alpha=0.3))[2] == SoftmaxFocalKeys(alpha=0.3, gamma=1.0)


def test_names_say_what_differs() -> None:
    assert list(name_losses(default_losses(CrossEntropyKeys()))) == [f"focal gamma {g}" for g in ("0", "0.5", "1", "2")]
    mixed = [
        FocalKeys(),
        FocalKeys(weight=2.0),
        CrossEntropyKeys(),
        FocalKeys(alpha=0.75),
        SoftmaxFocalKeys(alpha=(1.0, 0.5)),
    ]
    assert list(name_losses(mixed)) == [
        "focal alpha 0.25",
        "cross_entropy",
        "focal alpha 0.75",
        "softmax_focal alpha [1 0.5]",
    ]


OWN_LOSSES = ["focal", "cross_entropy", "ohem,ranking=class_and_box"]


@pytest.fixture(scope="module")
def samples(trained: Path, shapes: Path) -> LossSamples:
    """OWN_LOSSES of the tiny checkpoint on all validation scenes."""
    return measured(trained, shapes, OWN_LOSSES)


def measured(
    trained: Path, shapes: Path, texts: list[str], most_images: int | None = None, seed: int = 0
) -> LossSamples:
    """Samples of the tiny checkpoint on the validation scenes."""
    saved = load_detector(trained / "checkpoints" / "best.pt", [f"seed={seed}"])
    dataset = load_coco(shapes / "annotations" / "val.json", shapes / "val")
    losses = {name: build_class_loss(loss) for name, loss in name_losses(build_losses(texts)).items()}
    return sample_losses(build_measure(saved, losses), dataset, most_images, lambda _: None)


def test_the_samples_are_the_training_losses_of_each_anchor(trained: Path, shapes: Path, samples: LossSamples) -> None:
    saved = load_detector(trained / "checkpoints" / "best.pt", [])
    dataset = load_coco(shapes / "annotations" / "val.json", shapes / "val")
    (batch,) = eval_batches(
        dataset, build_resize_rule(saved.config), batch_size=6, rank=0, world_size=1, workers=0, pin=False
    )
    pyramid = pyramid_anchors((64, 64), saved.detector.anchors, saved.detector.device)
    assignment = assign_batch(pyramid, batch.targets, build_assign_rule(saved.config))
    with torch.no_grad():
        outputs = saved.detector.model(
            normalise(batch.images, batch.sizes_B2, saved.detector.pixels, channels_last=True)
        )
        divisor, seeds = Divisor(torch.ones(6), 1), torch.zeros(6, dtype=torch.int64)
        parts = build_criterion(saved.config)
        for index, options in enumerate(build_losses(OWN_LOSSES)):
            this = parts._replace(class_loss=build_class_loss(options))
            expected = criterion(outputs, assignment, pyramid.boxes_A4, this, divisor, seeds)
            positive, negative = samples.positives_SP[index].sum(), samples.negatives_SN[index].sum()
            assert positive == pytest.approx(float(expected.foreground), rel=1e-4)
            assert positive + negative == pytest.approx(float(expected.class_B.sum()), rel=1e-4)
    assert samples.images == 6
    assert samples.positives_SP.shape[1] == int((assignment.labels_BA >= 0).sum())
    assert samples.negatives_SN.shape[1] == int((assignment.labels_BA == -1).sum())
    by_class = next(b for b in samples.breakdowns if b.by == "class")
    assert by_class.anchors_G.tolist() == torch.bincount(assignment.labels_BA[assignment.labels_BA >= 0]).tolist()


def test_every_breakdown_sums_to_its_losses(samples: LossSamples) -> None:
    assert [(b.of, b.by) for b in samples.breakdowns] == [
        ("all", "label"),
        ("all", "level"),
        ("positives", "level"),
        ("negatives", "level"),
        ("positives", "size"),
        ("positives", "class"),
    ]
    sums = {"positives": samples.positives_SP.sum(axis=1), "negatives": samples.negatives_SN.sum(axis=1)}
    sums["all"] = sums["positives"] + sums["negatives"]
    for breakdown in samples.breakdowns:
        np.testing.assert_allclose(breakdown.loss_SG.sum(axis=1), sums[breakdown.of], rtol=1e-5)
        np.testing.assert_allclose(breakdown.shares_SG().sum(axis=1), 1)
    levels = samples.breakdowns[3]
    assert levels.names == ("P3", "P4", "P5", "P6", "P7")
    assert levels.anchors_G[-1] <= 6 * 9, "one cell of nine anchors an image"


def test_few_images_are_drawn_at_random_by_the_seed(trained: Path, shapes: Path) -> None:
    first, again, other = (measured(trained, shapes, ["focal"], most_images=2, seed=seed) for seed in (0, 0, 4))
    assert first.images == other.images == 2
    np.testing.assert_array_equal(first.negatives_SN, again.negatives_SN)
    assert first.negatives_SN.sum() != other.negatives_SN.sum()


def test_images_end_where_there_are_enough_of_both(
    trained: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "ROUND_IMAGES", 2)
    monkeypatch.setattr(sampling, "MOST_NEGATIVES", 100)
    monkeypatch.setattr(sampling, "MOST_POSITIVES", 1)
    samples = measured(trained, shapes, ["focal"])
    assert samples.images == 2
    assert samples.negatives_SN.shape[1] <= 150 < samples.breakdowns[0].anchors_G[1]


def test_data_without_a_positive_anchor_is_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "best.pt"
    with pytest.raises(DataError, match=r"val\.json: no anchor of the 6 images used is positive"):
        draw_loss_distribution(checkpoint, ["assign.positive_iou=1.0"], losses=[], output=tmp_path)


def test_a_diverged_network_is_an_error(trained: Path, tmp_path: Path) -> None:
    saved = load_checkpoint(trained / "checkpoints" / "best.pt")
    weights = {name: torch.full_like(value, torch.nan) for name, value in saved.weights().items()}
    save_checkpoint(tmp_path / "nan.pt", saved._replace(model=weights, average={}))
    with pytest.raises(NumericalError, match=r"focal gamma 0, .* image ids \[\d.*diverged"):
        draw_loss_distribution(tmp_path / "nan.pt", [], losses=[], output=tmp_path / "out")


@pytest.fixture(scope="module")
def softmax_checkpoint(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step with a softmax head."""
    from retinanet.training.engine import run_training

    folder = tmp_path_factory.mktemp("softmax") / "run"
    run_training(tiny("schedule.iterations=1", "loss.classification.kind=softmax_focal", "log.pictures=0"), folder)
    return folder / "checkpoints" / "last.pt"


@pytest.mark.slow
def test_a_softmax_head_gets_softmax_losses(softmax_checkpoint: Path) -> None:
    draw_loss_distribution(softmax_checkpoint, [], losses=[], most_images=2)
    rows = (softmax_checkpoint.parent.parent / "loss_distribution" / "curves.csv").read_text(encoding="utf-8")
    assert "softmax_focal gamma 0.5,negatives," in rows
    with pytest.raises(ConfigError, match=r"softmax head has 4 outputs .* sigmoid loss focal gamma 2 \(needs 3\)"):
        draw_loss_distribution(softmax_checkpoint, [], losses=["focal", "focal,gamma=1"])


def test_a_sigmoid_head_refuses_softmax_losses(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"sigmoid head has 3 .* softmax loss softmax_cross_entropy \(needs 4\)"):
        draw_loss_distribution(trained / "checkpoints" / "best.pt", [], losses=["focal", "softmax_cross_entropy"])
