"""Reading configs: bases, overrides and every error at once."""

import os
import re
from pathlib import Path

import pytest

from retinanet.config.load import load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, list(overrides))
    assert caught.value.exit_code == 2
    return str(caught.value)


# ---- schema


def test_an_empty_config_is_the_default_one(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "a.yaml", ""), []) == Config()


def test_ints_become_floats_and_lists_tuples(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "a.yaml", "model: {anchors: {sizes: [8, 16, 32, 64, 128]}}\n"), [])
    assert config.model.anchors.sizes == (8.0, 16.0, 32.0, 64.0, 128.0)
    assert all(type(size) is float for size in config.model.anchors.sizes)


BAD = """\
model:
  backbone:
    nam: resnet18
    frozen_stages: 7
    norm: frozen-bn
  channels_last: no
  anchors:
    sizes: [1, 2, 3, 4]
    scales: [1, x]
lr: 0.1
seed: 1e3
log:
eval: {topk: 1_000, every: -1, nms_iou: "0.5", score_threshold: .nan}
output: 2024
assign: {negative_iou: 0.6, colour: red}
"""


def test_every_error_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", BAD)
    message = refusal(path, "data.vertical_flip=2", "junk", "data.flip=[1", "modle.fpn=1")
    expected = [
        f"{path}:3: model.backbone.nam: unknown key; did you mean model.backbone.name?",
        f"{path}:4: model.backbone.frozen_stages: expected a whole number from 0 to 5, got 7",
        f"{path}:5: model.backbone.norm: expected one of frozen_bn, eval_bn, bn, sync_bn, gn, "
        "got the text 'frozen-bn'; did you mean froz",
        f"{path}:6: model.channels_last: expected true or false or one of inference, auto, "
        "got the text 'no': write true or false",
        f"{path}:8: model.anchors.sizes: expected a list of 5 to 6 values, each a number above 0, got a list of 4 val",
        f"{path}:9: model.anchors.scales[1]: expected a number above 0, got the text 'x'",
        f"{path}:10: lr: unknown key; did you mean schedule.lr?",
        f"{path}:11: seed: expected a whole number of at least 0",
        f"{path}:12: log: expected a section of keys, got null",
        f"{path}:13: eval.topk: expected a whole number of at least 1, got the text '1_000': write 1000",
        f"{path}:13: eval.every: expected a number of at least 0 or auto, got -1",
        f"{path}:13: eval.nms_iou: expected a number from 0 to 1, got the text '0.5': write it without quotes",
        f"{path}:13: eval.score_threshold: expected a number from 0 to 1, got nan",
        f"{path}:14: output: expected text or null, got 2024: put it in quotes",
        f"{path}:15: assign.colour: unknown key; the keys of assign are kind, atss_cells",
        "override 'data.vertical_flip=2': data.vertical_flip: expected a number from 0 to 1, got 2",
        "override 'junk': write it as key.path=value",
        "override 'data.flip=[1': data.flip: not valid YAML",
        "override 'modle.fpn=1': modle: unknown key; did you mean model?",
    ]
    assert [part for part in expected if part not in message] == []
    assert f"({len(expected)} errors)" in message
    assert "Input should be" not in message


def test_a_section_rule_is_checked_beside_an_unknown_key(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "assign:\n  colour: red\n  negative_iou: 0.6\n")
    message = refusal(path)
    assert f"{path}:2: assign.colour: unknown key" in message
    assert f"{path}:3: assign: negative_iou must not be above positive_iou" in message


def test_a_section_rule_about_a_wrong_key_is_not_reported(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "a.yaml", "schedule:\n  epochs: ten\n"))
    assert "(1 error)" in message
    assert "expected a number above 0 or auto or null, got the text 'ten'" in message


def test_yaml_and_schema_errors_come_together(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "seed: 1\nseed: 2\nlog: {evry: 3}\n")
    message = refusal(path)
    assert f"{path}:2: seed: given twice" in message
    assert f"{path}:3: log.evry: unknown key; did you mean log.every?" in message


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "schedule.lr"),
        ("schedule.learning_rate", "schedule.lr"),
        ("schedule.epoch", "schedule.epochs"),
        ("batch_size", "schedule.batch_size or eval.batch_size"),
        ("num_workers", "data.workers"),
        ("model.loss", "loss"),
        ("backbone", "model.backbone?"),
        ("sede", "seed"),
    ],
)
def test_did_you_mean(tmp_path: Path, key: str, meant: str) -> None:
    message = refusal(write(tmp_path, "a.yaml", ""), f"{key}=1")
    assert f"override '{key}=1': {key}: unknown key; did you mean {meant}" in message


def test_a_dotted_key_in_a_file_is_told_to_nest(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "a.yaml", "schedule.lr: 1\n"))
    assert "did you mean schedule.lr?" in message
    assert "nest keys by indentation" in message


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("data.scale_jitter=[2, 1]", "scale_jitter is [least, most]"),
        ("schedule.milestones=[3, 2]", "milestones must ascend"),
        ("seed=99999999999999999999", "seed: expected a whole number"),
        ("model.head.channels=1.5", "model.head.channels: expected a whole number of at least 1 or null, got 1.5"),
        ("model.channels_last=1", "expected true or false or one of inference, auto, got 1"),
        ("model.channels_last=inferense", "got the text 'inferense': write inference"),
        ("schedule.lr=true", "expected a number above 0, got true"),
        ("schedule.lr=1e999", "expected a number above 0, got inf"),
        ("data.shorter_side=600", "write it in brackets, [a]"),
        ("model.anchors.sizes.0=3", "model.anchors.sizes: expected a list of 5 to 6 values"),
        ("schedule=3", "schedule: expected a section of keys, got 3"),
        ("schedule.optimizer=adam", "expected one of sgd, adamw, got the text 'adam'; did you mean adamw?"),
        ("data.root=", "data.root: expected text, got null"),
    ],
)
def test_wrong_values_say_what_is_wanted(tmp_path: Path, word: str, part: str) -> None:
    message = refusal(write(tmp_path, "a.yaml", ""), word)
    assert f"override {word!r}: " in message
    assert part in message


# ---- files and bases


def test_a_missing_config_lists_the_nearest(tmp_path: Path) -> None:
    for name in ("quickstart.yaml", "coco/r50.yaml", "other.yaml"):
        write(tmp_path, name, "")
    message = refusal(tmp_path / "quikstart.yaml")
    assert f"there is no config {tmp_path / 'quikstart.yaml'}" in message
    assert str(tmp_path / "quickstart.yaml") in message
    assert "other.yaml" not in message
    assert str(tmp_path / "coco" / "r50.yaml") in refusal(tmp_path / "r5.yaml")
    assert "is a folder" in refusal(tmp_path / "coco")
    assert "does not exist" in refusal(tmp_path / "nowhere" / "a.yaml")
    assert "there is no config" in refusal(tmp_path / ("a" * 300 + ".yaml"))


def test_a_chain_of_bases_merges_deeply_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path, "low/a.yaml", "model: {head: {depth: 2, prior: 0.02}}\ndata: {shorter_side: [1, 2, 3]}\nseed: 1\n")
    write(tmp_path, "low/b.yaml", "base: a.yaml\nmodel: {head: {depth: 3}}\nseed: 2\n")
    top = write(tmp_path, "c.yaml", "base: low/b.yaml\ndata: {shorter_side: [4]}\n")
    config = load_config(top, ["model.head.norm=gn"])
    assert (config.model.head.depth, config.model.head.prior, config.model.head.norm) == (3, 0.02, "gn")
    assert config.data.shorter_side == (4,)
    assert config.seed == 2


def test_a_error_of_a_base_names_the_base(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "seed: 1\nlog: {every: 0}\nlog: {}\nassign: {positive_iou: 0.3}\n")
    top = write(tmp_path, "top.yaml", "base: base.yaml\nschedule: {lr: -1}\n")
    message = refusal(top)
    assert f"{base}:2: log.every: expected" in message
    assert f"{base}:3: log: given twice" in message
    assert f"{base}:4: assign: negative_iou must not be above positive_iou" in message
    assert f"{top}:2: schedule.lr: expected" in message


def test_a_value_that_a_later_layer_mends_is_no_error(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "seed: -1\n")
    assert load_config(write(tmp_path, "top.yaml", "base: base.yaml\nseed: 3\n"), []).seed == 3


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    a = write(tmp_path, "a.yaml", "base: b.yaml\n")
    b = write(tmp_path, "b.yaml", "seed: 1\nbase: ./a.yaml\n")
    message = refusal(a)
    assert f"{b}:2: base: the files form a circle: {a} -> {b}" in message
    own = write(tmp_path, "own.yaml", "base: own.yaml\n")
    assert f"{own}:1: base: the files form a circle" in refusal(own)


@pytest.mark.parametrize("value", ["3", "[a.yaml]", "null", "~", "{a: b}"])
def test_a_base_that_is_no_path_is_refused(tmp_path: Path, value: str) -> None:
    assert "a.yaml:1: base: expected the path of one YAML file" in refusal(
        write(tmp_path, "a.yaml", f"base: {value}\n")
    )


def test_a_missing_base_is_located_beside_the_other_errors(tmp_path: Path) -> None:
    write(tmp_path, "quick.yaml", "")
    path = write(tmp_path, "a.yaml", "seed: x\nbase: quik.yaml\n")
    message = refusal(path)
    assert f"{path}:1: seed: expected" in message
    assert f"{path}:2: base: there is no config {tmp_path / 'quik.yaml'}" in message
    assert str(tmp_path / "quick.yaml") in message


def test_an_override_cannot_name_a_base(tmp_path: Path) -> None:
    assert "only a config file can name its base" in refusal(write(tmp_path, "a.yaml", ""), "base=b.yaml")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_an_os_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "")
    path.chmod(0)
    with pytest.raises(PermissionError):
        load_config(path, [])


# ---- overrides


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("output=runs/a b", "runs/a b"),
        ("output=a: #b", "a: #b"),
        ("output=x=y", "x=y"),
        ("output=*.d", "*.d"),
        ("output=null", None),
        ('output="1e3"', "1e3"),
        ("output='null'", "null"),
        ("output= spaced ", "spaced"),
        (" output =a", "a"),
    ],
)
def test_text_of_an_override_is_taken_as_typed(tmp_path: Path, word: str, value: object) -> None:
    assert load_config(write(tmp_path, "a.yaml", ""), [word]).output == value


def test_overrides_set_numbers_lists_and_sections(tmp_path: Path) -> None:
    words = [
        "schedule.lr=1e-3",
        "data.canvas=[64, 96]",
        "model.head={depth: 1}",
        "model.head.norm=gn",
        "seed=1",
        "seed=2",
    ]
    config = load_config(write(tmp_path, "a.yaml", "model: {head: {prior: 0.5}}\n"), words)
    assert config.schedule.lr == 1e-3
    assert config.data.canvas == (64, 96)
    assert (config.model.head.depth, config.model.head.norm, config.model.head.prior) == (1, "gn", 0.5)
    assert config.seed == 2


@pytest.mark.parametrize("word", ["", "x", "=1", "a..b=1", ".a=1", "a.=1", "schedule.lr"])
def test_a_word_that_is_no_override_is_refused(tmp_path: Path, word: str) -> None:
    assert f"override {word!r}: write it as key.path=value" in refusal(write(tmp_path, "a.yaml", ""), word)


@pytest.mark.parametrize("value", ["[1", "{a: 1, a: 2}", "[&x 1]", "[1] 2", '"a', "[!!float 1]", "{1: 2}"])
def test_a_flow_value_is_read_strictly(tmp_path: Path, value: str) -> None:
    message = refusal(write(tmp_path, "a.yaml", ""), f"data.canvas={value}")
    assert f"override {'data.canvas=' + value!r}: data.canvas: " in message


# ---- the length of a schedule


def length(config: Config) -> tuple[float | None, int | None]:
    return config.schedule.epochs, config.schedule.iterations


def test_the_later_choice_of_length_counts(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "schedule: {iterations: 100}\n")
    assert length(load_config(base, ["schedule.epochs=3"])) == (3.0, None)
    child = write(tmp_path, "child.yaml", "base: base.yaml\nschedule: {epochs: 2}\n")
    assert length(load_config(child, [])) == (2.0, None)
    assert length(load_config(child, ["schedule.iterations=7"])) == (None, 7)
    assert length(with_overrides(load_config(child, []), ["schedule.iterations=9"])) == (None, 9)
    assert length(load_config(base, ["schedule.lr=1"])) == (None, 100)


def test_both_lengths_in_one_layer_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "schedule:\n  iterations: 100\n  epochs: 3\n")
    assert f"{path}:3: schedule: give exactly one of epochs and iterations" in refusal(path)
    empty = write(tmp_path, "b.yaml", "")
    assert "give exactly one" in refusal(empty, "schedule.epochs=1", "schedule.iterations=1")
    assert "give exactly one" in refusal(empty, "schedule.epochs=null", "schedule.iterations=null")


def test_a_schedule_without_length_takes_the_default_one(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "a.yaml", "schedule: {lr: 0.02}\n"), [])
    default = Config().schedule
    assert length(config) == (None, default.iterations)
    assert config.schedule.milestones == default.milestones
    assert config.schedule.lr == 0.02


def test_milestones_in_the_other_unit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "schedule: {epochs: 12, milestones: [8, 11]}\n")
    message = refusal(path, "schedule.iterations=100")
    assert (
        "override 'schedule.iterations=100': schedule.iterations: the milestones [8, 11] below are in epochs" in message
    )
    assert load_config(path, ["schedule.iterations=100", "schedule.milestones=[60]"]).schedule.milestones == (60.0,)
    assert length(load_config(path, ["schedule.iterations=100", "schedule.shape=cosine"])) == (None, 100)
    assert length(load_config(path, ["schedule.epochs=1"])) == (1.0, None)


def class_loss(path: Path, *overrides: str) -> dict[str, object]:
    return load_config(path, list(overrides)).loss.classification.model_dump()


def test_another_kind_of_class_loss_drops_the_keys_of_the_kind_below(tmp_path: Path) -> None:
    """Else the focal loss's alpha .25 would turn a study's balanced cross entropy into the paper's 10.8 AP row."""
    path = write(tmp_path, "a.yaml", "loss: {classification: {kind: focal, alpha: 0.25, gamma: 1.0, weight: 3.0}}")
    assert class_loss(path, "loss.classification.kind=balanced_cross_entropy") == {
        "kind": "balanced_cross_entropy",
        "weight": 3.0,
        "alpha": 0.75,
    }
    assert class_loss(path, "loss.classification.gamma=0.5")["alpha"] == 0.25
    assert class_loss(path, "loss.classification.kind=focal")["gamma"] == 1.0
    other = "loss.classification={kind: balanced_cross_entropy, alpha: 0.9}"
    assert class_loss(path, other)["alpha"] == 0.9


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loss.classification={kind: cross_entropy, alpha: 0.5}", "it is a key of kind focal"),
        ("loss.classification.gamme=2", "did you mean loss.classification.gamma?"),
        ("loss.classification.kind=fokal", "loss.classification.kind: expected one of focal, "),
        ("loss.classification.kind=my_poly", ", or a function in a file of yours, such as my_losses:poly, got "),
        ("loss.classification.kind=fokal", "did you mean focal?"),
        ("loss.classification=focal", "loss.classification: expected a section of keys, got the text 'focal'"),
        ("loss.classification={kind: softmax_focal, alpha: x}", "(1 error)"),
        (
            "loss.classification={kind: softmax_focal, alpha: [1, -2]}",
            "loss.classification.alpha: expected a number from",
        ),
        ("loss.classification.gamma=-1", "loss.classification.gamma: expected a number of at least 0, got -1"),
    ],
)
def test_errors_of_a_class_loss_are_told_for_its_kind(tmp_path: Path, override: str, told: str) -> None:
    assert told in refusal(write(tmp_path, "a.yaml", "seed: 1"), override)


# ---- a detector to start from


@pytest.mark.parametrize(
    "key", ["init", "checkpoint", "pretrained", "weights", "load_from", "resume_from", "model.pretrained", "model.ckpt"]
)
def test_names_of_other_projects_lead_to_the_detector_to_start_from(tmp_path: Path, key: str) -> None:
    message = refusal(write(tmp_path, "a.yaml", ""), f"{key}=a.pt")
    assert "did you mean model.weights? (it " in message
    assert ("--resume continues a run" in message) == (key == "resume_from")


def test_frozen_parts_must_leave_something_to_train_and_have_weights(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "")
    assert "fpn would keep random weights" in refusal(path, "model.frozen=[fpn]")
    everything = "model.frozen=[backbone, fpn, class_head, box_head]"
    assert "nothing would train" in refusal(path, everything, "model.weights=a.pt")
    assert load_config(path, ["model.frozen=[backbone]"]).model.frozen == ("backbone",)


def test_keys_of_the_network_that_are_not_set_stay_so(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "model: {weights: a.pt, backbone: {norm: bn}}")
    config = with_overrides(load_config(path, ["seed=1"]), ["seed=2", "model.fpn.channels=8"])
    given = {"weights": "a.pt", "backbone": {"norm": "bn"}, "fpn": {"channels": 8}}
    assert config.model.model_dump(exclude_unset=True) == given


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["model.fpn.finest=p2"], "5 values, .* 6 levels .*p2.*: .*[16, 32, 64, 128, 256, 512]"),
        (["model.anchors.sizes=[8, 16, 32, 64, 128, 256]"], "6 values, .* 5 levels .*p3.*: .*[16, 32, 64, 128, 256]"),
    ],
)
def test_every_level_has_a_size(tmp_path: Path, words: list[str], wanted: str) -> None:
    path = write(tmp_path, "a.yaml", "")
    assert re.search(wanted.replace("[", r"\["), refusal(path, *words))
    both = ["model.fpn.finest=p2", "model.anchors.sizes=[8, 16, 32, 64, 128, 256]"]
    assert load_config(path, both).model.fpn.finest == "p2"
