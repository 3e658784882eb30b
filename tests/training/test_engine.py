"""Training as a whole on a tiny network: what a run folder holds, what changes nothing, and what stops a run."""

import hashlib
import json
import multiprocessing
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from host_reads import HostReads
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retinanet import distributed
from retinanet.build import network
from retinanet.build.network import choose_channels_last
from retinanet.config.load import load_config
from retinanet.config.schema import Config
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.loader import GlobalBatches
from retinanet.data.results import read_results
from retinanet.errors import CheckpointError, ConfigError, DataError, NumericalError, ResourceError, UserError
from retinanet.run.checkpoint import Progress, load_checkpoint, save_checkpoint
from retinanet.run.interrupts import StopRequest
from retinanet.run.metric_rows import read_rows, without_clock
from retinanet.scoring.analysis.analyse import analyse
from retinanet.scoring.eval_file import eval_content
from retinanet.scoring.evaluation import METRIC_NAMES, coco_evaluation
from retinanet.structures import Batch
from retinanet.training.batches import check_batch_divides, load_data, load_steps
from retinanet.training.engine import run_training
from retinanet.training.optim import set_lr
from retinanet.training.parts import build_step_parts
from retinanet.training.state import TrainState, build_state, restore, snapshot
from retinanet.training.step import MOST_SKIPPED, StepParts, train_step

Tiny = Callable[..., Config]
pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def finished(tiny: Tiny, small_network: None, real_curves: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps with evaluations after three and six; read only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_training(tiny("eval.every=3", "eval.unit=steps", "schedule.ema=0.9", "log.pictures=2"), folder)
    return folder


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "train"]


def weights_hash(folder: Path) -> str:
    state = load_checkpoint(folder / "checkpoints" / "last.pt").model
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.mark.slow
def test_a_run_folder_holds_everything(finished: Path, tiny: Tiny) -> None:
    files = {str(file.relative_to(finished)) for file in finished.rglob("*") if file.is_file()}
    pictures = {name for name in files if name.startswith("pictures/")}
    events = {name for name in files if name.startswith("tensorboard/events.out.tfevents")}
    assert len(events) == 1
    assert {f"pictures/{name}" for name in ("overview.jpg", "curves.png", "data.png", "train_batch.jpg")} < pictures
    assert len(pictures) == 6
    assert files - pictures - events == {
        *("config.yaml", "metrics.jsonl", "eval.json", "detections.json", "run.lock"),
        *("checkpoints/last.pt", "checkpoints/step-3.pt", "checkpoints/best.pt"),
    }
    words = ("eval.every=3", "eval.unit=steps", "schedule.ema=0.9", "log.pictures=2")
    chosen = choose_channels_last(tiny(*words).model, torch.device("cpu"))
    assert load_config(finished / "config.yaml", []) == tiny(*words).model_copy(
        update={"model": chosen, "compile": False}
    )


@pytest.mark.slow
def test_metrics_have_a_row_a_step_and_the_evaluations(finished: Path) -> None:
    rows = read_rows(finished / "metrics.jsonl")
    assert [(row["kind"], row["step"]) for row in rows] == [
        *(("train", step) for step in (1, 2, 3)),
        ("eval", 3),
        *(("train", step) for step in (4, 5, 6)),
        ("eval", 6),
    ]
    first, evaluation = rows[0], rows[3]
    assert first["loss"] == pytest.approx(first["loss_class"] + first["loss_box"])
    assert first["epoch"] == pytest.approx(4 / 12)
    assert first["positives_per_image"] > 0
    assert first["positives_per_image"] < first["anchors_per_image"] < first["logits_per_image"]
    assert first["logits_per_image"] / first["anchors_per_image"] == 3, "the classes of shapes"
    assert 0 <= first["class_loss_foreground_share"] <= 1
    assert {"images_per_second", "data_wait", "memory_mb", "seconds_left"} <= first["clock"].keys()
    assert first["lr"] < rows[2]["lr"] == 0.01, "warmup, then the peak"
    assert [name for name in evaluation if name in METRIC_NAMES] == list(METRIC_NAMES)


@pytest.mark.slow
def test_tensorboard_has_scalars_and_pictures(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    wanted = ("loss/total", "loss/class", "loss/box", "schedule/lr", "data/positives_per_image", "eval/AP")
    assert {*wanted, "data/class_loss_foreground_share"} <= set(tags["scalars"])
    assert "data/class_loss_background_share" not in tags["scalars"], "it is 1 minus the other"
    assert len(tags["images"]) == 2
    assert all(tag.startswith("ground_truth_left_predictions_right/") for tag in tags["images"])
    (text,) = (event.tensor_proto.string_val[0].decode() for event in events.Tensors("config/text_summary"))
    assert text == f"```yaml\n{(finished / 'config.yaml').read_text(encoding='utf-8')}\n```"
    assert [event.step for event in events.Images(tags["images"][0])] == [3, 6], "the same image each time"
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_eval_json_is_what_the_detections_give(finished: Path, shapes: Path) -> None:
    evaluation = json.loads((finished / "eval.json").read_text(encoding="utf-8"))
    assert list(evaluation["metrics"]) == list(METRIC_NAMES)
    truth = load_ground_truth(shapes / "annotations" / "val.json")
    assert [(row["id"], row["name"]) for row in evaluation["per_class"]] == [
        (category["id"], category["name"]) for category in truth["categories"]
    ]
    results = read_results(finished / "detections.json", truth)
    assert len(results) > 6
    expected = analyse(coco_evaluation(truth, results))
    assert evaluation == eval_content(expected, step=evaluation["step"], precision=evaluation["precision"])
    best = load_checkpoint(finished / "checkpoints" / "best.pt").progress
    assert evaluation["step"] == best.best_step == best.step
    assert evaluation["metrics"]["AP"] == best.best_ap


@pytest.mark.slow
def test_the_moving_average_is_saved_with_the_weights(finished: Path) -> None:
    last = load_checkpoint(finished / "checkpoints" / "last.pt")
    name = "class_head.predict.weight"
    assert last.average["n_averaged"] == 6
    assert not torch.equal(last.weights()[name], last.model[name])
    best = load_checkpoint(finished / "checkpoints" / "best.pt")
    assert best.optimizer == best.average == {}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_a_run_does_not_depend_on_loader_workers(finished: Path, tiny: Tiny, tmp_path: Path, workers: int) -> None:
    words = ("eval.every=3", "eval.unit=steps", "schedule.ema=0.9", "log.pictures=0", f"data.workers={workers}")
    run_training(tiny(*words), tmp_path)
    assert multiprocessing.active_children() == []
    assert without_clock(tmp_path / "metrics.jsonl") == without_clock(finished / "metrics.jsonl")
    assert weights_hash(tmp_path) == weights_hash(finished)
    assert (tmp_path / "detections.json").read_bytes() == (finished / "detections.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("normaliser", "parts"), [("batch_positives", (2, 4)), ("image_positives", (4,))])
def test_accumulation_changes_nothing(tiny: Tiny, tmp_path: Path, normaliser: str, parts: tuple[int, ...]) -> None:
    words = ("schedule.iterations=4", f"loss.normaliser={normaliser}", "log.pictures=0")
    for accumulation in (1, *parts):
        run_training(tiny(f"schedule.accumulation={accumulation}", *words), tmp_path / str(accumulation))
    whole, *split = (
        [row for row in read_rows(tmp_path / str(n) / "metrics.jsonl") if row["kind"] == "train"] for n in (1, *parts)
    )
    assert len(whole) == 4
    for rows in split:
        for row, expected in zip(rows, whole, strict=True):
            for name in ("loss", "loss_class", "loss_box", "positives_per_image", "class_loss_foreground_share"):
                assert row[name] == pytest.approx(expected[name], abs=1e-5), (row["step"], name)
            assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_micro_batches_of_transposed_canvases_have_anchors_of_their_own(tiny: Tiny, tmp_path: Path) -> None:
    """96 x 128 and 128 x 96 have as many anchors, elsewhere: two images together cost the mean of each alone."""
    sizes, box = [(96, 97), (97, 96)], [20, 50, 40, 30]
    for image_id, (height, width) in enumerate(sizes, start=1):
        pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(image_id))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(tmp_path / f"{image_id}.png")

    def first_loss(name: str, ids: list[int]) -> float:
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "height": sizes[i - 1][0], "width": sizes[i - 1][1]} for i in ids
            ],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 1200, "iscrowd": 0} for i in ids
            ],
            "categories": [{"id": 1, "name": "thing"}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        data = [f"data.{split}_annotations={name}.json" for split in ("train", "val")]
        data += [f"data.root={tmp_path}", "data.train_images=.", "data.val_images=.", "data.canvas=null", "data.flip=0"]
        data += ["data.shorter_side=[96]", "data.longer_side=97", "data.canvases=tight", "data.resize=float_bilinear"]
        batch = f"schedule.batch_size={len(ids)}", f"schedule.reference_batch={len(ids)}"
        one_each = f"schedule.accumulation={len(ids)}", "schedule.iterations=1", "loss.normaliser=image_positives"
        run_training(tiny(*data, *batch, *one_each, "assign.low_quality=true"), tmp_path / name)
        return losses(tmp_path / name)[0]

    together, alone = first_loss("both", [1, 2]), [first_loss("first", [1]), first_loss("second", [2])]
    assert together == pytest.approx(sum(alone) / 2, rel=1e-5)


@pytest.mark.slow
def test_two_images_are_learned(tiny: Tiny, tmp_path: Path) -> None:
    words = ("data.limit=2", "schedule.iterations=40", "schedule.batch_size=2", "schedule.reference_batch=2")
    run_training(
        tiny(*words, "schedule.optimizer=adamw", "schedule.lr=0.002", "data.flip=0.0", "log.pictures=0"), tmp_path
    )
    values = losses(tmp_path)
    assert sum(values[-5:]) / 5 < 0.35 * values[0], values


@pytest.mark.slow
def test_batches_without_any_object_are_trained_on(tiny: Tiny, tmp_path: Path, shapes: Path) -> None:
    data = copy_data(shapes, tmp_path / "data")
    edit_json(data / "annotations/train.json", lambda c: [a for a in c["annotations"] if a["image_id"] == 1])
    words = ("schedule.batch_size=2", "schedule.reference_batch=2", "loss.box.kind=giou", "log.pictures=0")
    run_training(tiny(f"data.root={data}", *words), tmp_path / "run")
    rows = [row for row in read_rows(tmp_path / "run/metrics.jsonl") if row["kind"] == "train"]
    empty = [row for row in rows if row["positives_per_image"] == 0]
    assert len(empty) == 5
    assert all(row["loss_box"] == 0 and row["class_loss_foreground_share"] == 0 for row in empty)
    assert all(0 < row["loss"] < 1e4 for row in empty)


@pytest.mark.slow
def test_the_ap_of_validation_images_without_objects_is_minus_one(tiny: Tiny, tmp_path: Path, shapes: Path) -> None:
    data = copy_data(shapes, tmp_path / "data")
    edit_json(data / "annotations/val.json", lambda _: [])
    run_training(tiny(f"data.root={data}", "schedule.iterations=1"), tmp_path / "run")
    assert json.loads((tmp_path / "run/eval.json").read_text(encoding="utf-8"))["metrics"]["AP"] == -1


@pytest.mark.slow
def test_data_that_cannot_be_trained_on_is_refused(tiny: Tiny, tmp_path: Path, shapes: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: no folder .*nowhere"):
        run_training(tiny(f"data.root={tmp_path / 'nowhere'}"), tmp_path / "run")
    data = copy_data(shapes, tmp_path / "data")
    train_json, val_json = data / "annotations/train.json", data / "annotations/val.json"
    whole = val_json.read_text(encoding="utf-8")
    val_json.write_text(whole.replace('"disc"', '"disk"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"its categories differ.*disk.*disc"):
        run_training(tiny(f"data.root={data}"), tmp_path / "run")
    val_json.write_text(whole, encoding="utf-8")
    edit_json(train_json, lambda _: [])
    with pytest.raises(DataError, match="nothing to learn"):
        run_training(tiny(f"data.root={data}"), tmp_path / "run")
    # A folder in which no run has started is free for the next attempt.
    run_training(tiny("schedule.iterations=1"), tmp_path / "run")


@pytest.mark.slow
def test_training_stops_early_and_notes_it(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("schedule.early_stop=2", "eval.every=1", "eval.unit=steps", "schedule.lr=1e-9", "log.pictures=0")
    run_training(config, tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["kind"] == "note"
    assert "stopped early: 2 evaluations without improvement over AP" in rows[-1]["text"]
    progress = load_checkpoint(tmp_path / "checkpoints/last.pt").progress
    assert rows[-1]["step"] == progress.step == 3
    before = without_clock(tmp_path / "metrics.jsonl")
    run_training(config, tmp_path, resume=True)
    assert without_clock(tmp_path / "metrics.jsonl") == before


@pytest.mark.slow
def test_a_resumed_run_keeps_the_memory_order_that_it_began_with(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(network, "trains_faster_in_nchw", lambda device: True)
        run_training(tiny("schedule.iterations=1"), tmp_path)
    monkeypatch.setattr(network, "trains_faster_in_nchw", lambda device: False)
    run_training(tiny("schedule.iterations=2"), tmp_path, resume=True)
    assert load_config(tmp_path / "config.yaml", []).model.channels_last == "inference"
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt").config.model.channels_last == "inference"


@pytest.mark.slow
def test_a_folder_with_a_run_is_not_touched_unless_asked_to(finished: Path, tiny: Tiny, tmp_path: Path) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run"):
        run_training(tiny(), finished)
    assert (finished / "metrics.jsonl").read_bytes() == before
    run_training(tiny("schedule.iterations=2"), tmp_path)
    run_training(tiny("schedule.iterations=1"), tmp_path, overwrite=True)
    assert len(losses(tmp_path)) == 1


@pytest.mark.parametrize(
    ("ranks", "accumulation", "divides"), [(1, 3, False), (2, 2, True), (2, 4, False), (3, 1, False)]
)
def test_a_batch_that_does_not_split_evenly_is_refused(
    tiny: Tiny, ranks: int, accumulation: int, divides: bool
) -> None:
    config = tiny(f"schedule.accumulation={accumulation}")
    if divides:
        check_batch_divides(config, distributed.Ranks(0, 0, ranks))
        return
    with pytest.raises(ConfigError, match=rf"4 images do not split .* multiple of {ranks * accumulation}"):
        check_batch_divides(config, distributed.Ranks(0, 0, ranks))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["model.backbone.weights=imagenet", "data.train_images=absent"])
def test_an_old_run_outlives_a_new_one_that_cannot_start(
    wrong: str, tiny: Tiny, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinanet.training.state.read_backbone_weights", unreadable)
        with pytest.raises(UserError):
            run_training(tiny(wrong), run, overwrite=True)
    assert (run / "checkpoints/last.pt").read_bytes() == (finished / "checkpoints/last.pt").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def unreadable(*_: object) -> None:
    raise CheckpointError("no weights")


@pytest.mark.slow
def test_a_run_whose_folder_is_deleted_ends_with_one_message(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("schedule.iterations=3", "log.save_every=1")
    monkeypatch.setattr(
        "retinanet.training.loop.set_lr", lambda *_: shutil.rmtree(tmp_path / "run", ignore_errors=True)
    )
    with pytest.raises(ResourceError, match=r"run has been deleted or moved, while this run was writing to it"):
        run_training(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_images(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("schedule.iterations=4", "log.save_every=2", "log.pictures=0")
    run_training(config, tmp_path)
    last = tmp_path / "checkpoints" / "last.pt"
    saved = load_checkpoint(last)
    poisoned = {
        **saved.model,
        "box_head.predict.bias": torch.full_like(saved.model["box_head.predict.bias"], 3e38),
    }
    save_checkpoint(last, saved._replace(model=poisoned, progress=Progress(2, -1.0, 0, 0)))
    before = last.read_bytes()
    with pytest.raises(NumericalError, match=r"step 3: the loss is not finite") as caught:
        run_training(config, tmp_path, resume=True)
    batches = iter(GlobalBatches([0] * 12, 4, config.data.shorter_side, config.seed))
    third = {key.image + 1 for key in [next(batches) for _ in range(3)][2]}
    # Those of the batch that have positives: the poison is in the box head.
    listed = re.search(r"images with id \[([\d, ]+)\]", str(caught.value))
    assert listed is not None
    assert {int(number) for number in listed[1].split(",")} <= third
    assert last.read_bytes() == before
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]


def first_step(config: Config, folder: Path) -> tuple[TrainState, list[Batch], StepParts]:
    """All that the first step of a run takes."""
    device, ranks = torch.device("cpu"), distributed.read_ranks()
    train_set, _ = load_data(config, ranks)
    with closing(load_steps(config, train_set, (0, 1), ranks, pin=False)) as steps:
        batches = next(steps)
    return (
        build_state(config, len(train_set.categories), device, ranks),
        batches,
        build_step_parts(config, device, ranks),
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_update(bad: float, tiny: Tiny, tmp_path: Path) -> None:
    state, batches, parts = first_step(tiny("schedule.ema=0.9"), tmp_path)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.model.get_parameter("box_head.predict.bias").register_hook(lambda gradient: gradient * bad)
    with pytest.raises(NumericalError, match=r"step 1: .*gradient"):
        train_step(state, batches, parts, StopRequest())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())
    assert state.average is not None
    assert int(state.average.n_averaged) == 0
    assert not state.optimizer.state


def test_float16_that_makes_no_update_is_reported(tiny: Tiny, tmp_path: Path) -> None:
    state, batches, parts = first_step(tiny(), tmp_path)
    set_lr(state.optimizer, 1e-6)
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    before = state.model.get_parameter("box_head.predict.bias").detach().clone()
    assert not train_step(state, batches, parts, StopRequest()).skipped
    assert not torch.equal(state.model.get_parameter("box_head.predict.bias"), before)
    state.model.get_parameter("box_head.predict.bias").register_hook(lambda gradient: gradient * torch.inf)
    for skipped in (1, 2):
        assert train_step(state, batches, parts, StopRequest()).skipped
        assert state.skipped == skipped
    state.skipped = MOST_SKIPPED - 1
    with pytest.raises(NumericalError, match=r"none of the last 25 updates was made.*scale of 8\.2e\+03.*bfloat16"):
        train_step(state, batches, parts, StopRequest())


@pytest.mark.parametrize("saved_scaler", [{}, {"scale": 8.0}])
def test_a_run_that_began_without_loss_scaling_continues_with_it(
    saved_scaler: dict[str, float], tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny()
    state, batches, parts = first_step(config, tmp_path)
    train_step(state, batches, parts, StopRequest())
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    whole = {**state.scaler.state_dict(), **saved_scaler} if saved_scaler else {}
    saved = snapshot(state, config, ())._replace(scaler=whole)
    restore(state, saved, config, (), tmp_path / "last.pt")
    assert state.scaler.get_scale() == saved_scaler.get("scale", 65536.0)


DENSE = (
    *("focal_star", "cross_entropy", "balanced_cross_entropy", "ghm"),
    *("softmax_cross_entropy", "softmax_focal"),
)
BY_QUALITY = ("quality_focal", "varifocal")
"""Losses that look for the positives once more."""

SELECTING = ("ohem", "ohem_1_3")
"""Losses of anchors that the host chooses."""


@pytest.mark.parametrize(
    ("kind", "accumulation"),
    [("focal", 1), ("focal", 2), *((kind, 2) for kind in (*DENSE, *BY_QUALITY, *SELECTING, "sampled"))],
)
def test_a_step_syncs_with_the_device_once_for_positives_and_once_for_its_numbers(
    kind: str, accumulation: int, tiny: Tiny, tmp_path: Path
) -> None:
    """And once for the anchors that the host chooses, for all images of a micro-batch. Recorded in the second step,
    when anchors are cached. Image ids are read before they leave the host."""
    words = [f"loss.classification.kind={kind}", f"schedule.accumulation={accumulation}", "schedule.ema=0.9"]
    if kind in (*SELECTING, "sampled"):
        words.append("loss.classification.batch=4")
    state, batches, parts = first_step(tiny(*words, "assign.low_quality=true", "data.canvas=[64, 64]"), tmp_path)
    train_step(state, batches, parts, StopRequest())
    with HostReads() as reads:
        train_step(state, batches, parts, StopRequest())
    extra = "cpu" if kind in SELECTING else "nonzero"
    in_loss = [extra] if kind in (*SELECTING, *BY_QUALITY) else []
    assert reads.found == ["tolist"] * accumulation + ["nonzero"] * accumulation + in_loss * accumulation + ["tolist"]


@pytest.mark.slow
def test_a_step_divides_by_the_running_mean_of_its_own_positives(tiny: Tiny, tmp_path: Path) -> None:
    """The first step's loss under each normaliser, one rank: the mean starts at 100 and moves before it divides."""
    words = ("schedule.iterations=1", "log.pictures=0", "schedule.accumulation=2")
    found = {}
    for kind in ("batch_positives", "rank_positives", "running_positives"):
        run_training(tiny(*words, f"loss.normaliser={kind}"), tmp_path / kind)
        found[kind] = read_rows(tmp_path / kind / "metrics.jsonl")[0]
    positives = found["batch_positives"]["positives_per_image"] * 4
    assert positives > 0
    sums = found["batch_positives"]["loss"] * positives
    assert found["rank_positives"]["loss"] == found["batch_positives"]["loss"]
    assert found["running_positives"]["loss"] == pytest.approx(sums / (90 + positives / 10), rel=1e-5)
    assert load_checkpoint(tmp_path / "rank_positives" / "checkpoints" / "last.pt").running_positives_R is None


def copy_data(shapes: Path, target: Path) -> Path:
    """The same images with copies of the annotation files."""
    (target / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (target / split).symlink_to(shapes / split)
        content = (shapes / "annotations" / f"{split}.json").read_text(encoding="utf-8")
        (target / "annotations" / f"{split}.json").write_text(content, encoding="utf-8")
    return target


def edit_json(path: Path, annotations: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """Replace a COCO file's annotations."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"] = annotations(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ohem_1_3", "sampled", "quality_focal", "ghm", "softmax_focal"])
def test_losses_of_every_kind_train_save_and_detect(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    """Those that use boxes, draw at random, have their own normaliser or another head; also with two micro-batches."""
    words = ("schedule.iterations=2", f"loss.classification.kind={kind}", "log.pictures=0")
    run_training(tiny(*words), tmp_path / "whole")
    assert (tmp_path / "whole" / "eval.json").exists()
    run_training(tiny(*words, "schedule.accumulation=2"), tmp_path / "split")
    if kind != "ghm":
        assert losses(tmp_path / "split") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
