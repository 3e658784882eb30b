"""A study file: the study it resolves to, and errors with their lines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.ablation.arms import slug_of
from retinanet.ablation.study import load_study
from retinanet.ablation.study_text import study_text
from retinanet.errors import ConfigError

STUDY = """title: A title
base: {base}
overrides: {{log.pictures: 0, schedule: {{momentum: 0.8}}}}
arms:
  - {{name: FL, overrides: {{loss: {{classification: {{gamma: 1.0}}}}}}, note: seen}}
  - name: CE 0.75
    overrides: {{loss.classification.kind: balanced_cross_entropy, loss.classification.alpha: 0.75}}
    paper: {{AP: 31.1, AP50: 50}}
reference: FL
budget: {{iterations: 7}}
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, tiny_yaml: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text.format(base=tiny_yaml), encoding="utf-8")
        return path

    return write


def errors_of(path: Path, overrides: list[str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_study(path, overrides)
    return str(raised.value).splitlines()[1:]


def test_arms_are_the_base_with_the_studys_and_their_own_overrides(write: Write) -> None:
    study = load_study(write(STUDY), ["schedule.lr=0.5"])
    first, second = study.arms
    loss = first.config.loss.classification
    assert (loss.kind, loss.weight, loss.alpha, loss.gamma) == ("focal", 1.0, 0.25, 1.0)
    assert second.config.loss.classification.kind == "balanced_cross_entropy"
    for arm in study.arms:
        schedule = arm.config.schedule
        assert (schedule.momentum, schedule.iterations, schedule.lr) == (0.8, 7, 0.5)
        assert arm.config.log.pictures == 0
    assert second.paper == {"AP": 31.1, "AP50": 50.0}
    assert (first.note, second.slug) == ("seen", "CE-0.75")
    assert (study.seeds, study.lr_values, study.jobs) == ((0, 1, 2), (), 1)
    assert study.test == ("annotations/val.json", "val")
    assert study.folder == Path("runs/ablations/mine")
    assert load_study(write(STUDY), ["output=elsewhere"]).folder == Path("elsewhere")


def test_a_kind_of_an_arm_drops_the_keys_of_the_studys_kind(write: Write) -> None:
    text = STUDY.replace("log.pictures: 0", "log.pictures: 0, loss.classification: {{kind: focal, gamma: 3.0}}")
    kinds = [arm.config.loss.classification for arm in load_study(write(text)).arms]
    assert "gamma" not in type(kinds[1]).model_fields


def test_a_grid_is_every_combination(write: Write) -> None:
    text = """
base: {base}
grid:
  loss.classification.gamma: [0.0, 2]
  loss.classification.alpha: [0.5, 0.25]
paper: [null, 10.8, 33, 34]
reference: gamma 2, alpha 0.25
"""
    study = load_study(write(text))
    names = ["gamma 0.0, alpha 0.5", "gamma 0.0, alpha 0.25", "gamma 2, alpha 0.5", "gamma 2, alpha 0.25"]
    assert [arm.name for arm in study.arms] == names
    assert [arm.paper for arm in study.arms] == [{}, {"AP": 10.8}, {"AP": 33.0}, {"AP": 34.0}]
    assert [arm.config.loss.classification.alpha for arm in study.arms] == [0.5, 0.25, 0.5, 0.25]
    wrong = errors_of(write(text.replace(", 34]", "]")))
    assert len(wrong) == 1
    assert "mine.yaml:6: paper: the grid has 4 combinations, got 3" in wrong[0]


def test_the_resolved_text_loads_back_to_the_same_study(write: Write, tmp_path: Path) -> None:
    text = STUDY + "note: \"it's: {{odd}} # 1\"\nlr: {{rule: grid, values: [1.0e-3, 0.3]}}\noutput: 'a b'\n"
    text += "test: {{annotations: annotations/train.json, images: train}}\nmay_differ: [loss, data.flip]\njobs: 3\n"
    study = load_study(write(text), ["data.limit=5"])
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "study.yaml"
    again.write_text(study_text(study), encoding="utf-8")
    assert load_study(again) == study
    epochs = load_study(write(STUDY.replace("iterations: 7", "epochs: 2.5")))
    again.write_text(study_text(epochs), encoding="utf-8")
    assert load_study(again) == epochs


def test_arms_that_start_from_a_detector_leave_the_network_to_it(write: Write, tmp_path: Path) -> None:
    text = STUDY.replace("log.pictures: 0", "model.weights: a.pt").replace("base: {base}\n", "")
    study = load_study(write(text))
    resolved = tmp_path / "study.yaml"
    resolved.write_text(study_text(study), encoding="utf-8")
    for arm in (*study.arms, *load_study(resolved).arms):
        assert arm.config.model.model_dump(exclude_unset=True) == {"weights": "a.pt"}


def test_all_errors_are_reported_together_with_their_lines(write: Write) -> None:
    text = STUDY.replace("gamma: 1.0", "gama: 1.0").replace("momentum: 0.8", "momentum: 1.5")
    lines = errors_of(write(text))
    assert len(lines) == 1, "the arms can only be checked upon a base"
    assert "mine.yaml:3: schedule.momentum: expected a number" in lines[0]
    text = STUDY.replace("gamma: 1.0", "gama: 1.0").replace("alpha: 0.75", "alpha: 7").replace("nce: FL", "nce: FK")
    lines = errors_of(write(text))
    assert len(lines) == 3
    assert "mine.yaml:5: arm FL: loss.classification.gama: unknown key" in lines[0]
    assert "gamma" in lines[0]
    assert "mine.yaml:7: arm CE 0.75: loss.classification.alpha: expected" in lines[1]
    assert "mine.yaml:9: reference: no arm 'FK'; did you mean FL?" in lines[2]


@pytest.mark.parametrize(
    ("was", "becomes", "line", "part"),
    [
        ("title:", "tittle:", 1, "tittle: unknown key; did you mean title?"),
        ("reference: FL", "", 1, "reference: is missing; give name of the arm"),
        ("note: seen", "paper: {{APx: 3}}", 5, "arms[0].paper.APx: unknown key; did you mean AP"),
        ("iterations: 7", "iterations: 7, epochs: 2", 10, "budget: give exactly one of iterations and epochs"),
        (
            "iterations: 7",
            "iterations: many",
            10,
            "iterations: expected a whole number of at least 1 or null, got the text",
        ),
        ("reference:", "seeds: [1, 1]\nreference:", 9, "the same seed twice"),
        ("reference:", "seeds: []\nreference:", 9, "seeds: expected a list of at least one value"),
        ("reference:", "lr: {{rule: grid, values: [0.1]}}\nreference:", 9, "at least two different"),
        ("reference:", "lr: {{rule: grid, values: [0.1, 0.2]}}\nreference:", 9, "needs a `test` split"),
        ("reference:", "lr: {{values: [0.1, 0.2]}}\nreference:", 9, "rule same takes no `values`"),
        ("reference:", "paper: [1]\nreference:", 9, "write it into each arm"),
        ("reference:", "jobs: 0\nreference:", 9, "jobs: expected a whole number of at least 1, got 0"),
        ("reference:", "may_differ: [loss.clasification]\nreference:", 9, "no config key loss.clasification"),
        ("base: {base}", "base: nowhere.yaml", 2, "there is no config"),
        ("log.pictures: 0", "seed: 3", 3, "overrides.seed: the study sets it; use seeds"),
        ("log.pictures: 0", "schedule.momentum: 0.5", 3, "given twice, nested and with dots"),
        ("log.pictures: 0", "schedule.early_stop: 3", 3, "different numbers of steps"),
        ("name: CE 0.75", "name: fl", 6, "its files would be those of arm FL"),
        ("loss.classification.alpha: 0.75", "data.flip: 0.0", 6, "arm CE 0.75 differs from FL in data.flip"),
        ("loss.classification.alpha: 0.75", "schedule.iterations: 9", 7, "is the same for all arms; see `budget`"),
        ("loss.classification.alpha: 0.75", "seed: 9", 7, "is the same for all arms; see `seeds`"),
        ("note: seen", "note: seen, note: again", 5, "given twice"),
        ("note: seen", "nots: seen", 5, "arms[0].nots: unknown key; did you mean arms[0].note?"),
        (
            "overrides: {{log.pictures: 0",
            "overrides: 3 # {{log.pictures: 0",
            3,
            "overrides: expected a mapping of keys",
        ),
        ("budget: {{iterations: 7}}", "budget: 7", 10, "budget: expected a section of keys or null, got 7"),
        ("budget: {{iterations: 7}}", "test: {{images: a}}", 10, "test.annotations: is missing; give COCO-format JSON"),
        ("name: CE 0.75", "name: ''", 6, "arms[1].name: expected text that is not empty"),
    ],
)
def test_an_error_names_its_line_and_the_remedy(write: Write, was: str, becomes: str, line: int, part: str) -> None:
    assert was in STUDY
    lines = errors_of(write(STUDY.replace(was, becomes)))
    assert any(f"mine.yaml:{line}: " in text and part in text for text in lines), lines


def test_a_grid_must_not_select_on_the_test_split(write: Write) -> None:
    rule = "lr: {{rule: grid, values: [0.1, 0.2]}}\ntest: {{annotations: ./annotations/val.json, images: val}}\n"
    assert any("test.annotations: is data.val_annotations" in line for line in errors_of(write(STUDY + rule)))
    text = STUDY.replace("gamma: 1.0}}}}", "gamma: 1.0}}}}, schedule.lr: 0.1")
    rule = rule.replace("./annotations/val.json, images: val", "annotations/train.json, images: train")
    lines = errors_of(write(text + rule))
    assert any("schedule.lr is the same for all arms; see `lr`" in line for line in lines)


def test_what_is_named_may_differ(write: Write) -> None:
    text = STUDY.replace("loss.classification.alpha: 0.75", "data.flip: 0.0")
    study = load_study(write(text + "may_differ: [loss.classification, data]\n"))
    assert [arm.config.data.flip for arm in study.arms] == [0.5, 0.0]


def test_values_keep_their_types_and_a_wrong_list_item_its_line(write: Write) -> None:
    text = STUDY.replace("log.pictures: 0", "data.canvas: [64, 96], schedule.lr: 1.0e-05, output: null")
    lines = errors_of(write(text))
    assert len(lines) == 1
    assert "overrides.output: the study sets it" in lines[0]
    base = load_study(write(text.replace(", output: null", ""))).base
    assert (base.data.canvas, base.schedule.lr) == ((64, 96), 1e-05)
    lines = errors_of(write(text.replace("[64, 96]", "[64, x]").replace(", output: null", "")))
    assert "mine.yaml:3: data.canvas" in lines[0]


def test_a_wrong_override_on_the_command_line_is_named(write: Write) -> None:
    lines = errors_of(write(STUDY), ["schedule.lr=fast"])
    assert "override 'schedule.lr=fast': schedule.lr: expected" in lines[0]


def test_a_study_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"no study nowhere\.yaml"):
        load_study(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("name", "slug"), [("CE (α=0.75)", "CE-0.75"), ("../../x", "x"), ("???", "arm"), ("a b/c", "a-b-c"), ("-x.", "x")]
)
def test_slugs_are_safe_file_names(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_a_mistyped_study_is_answered_with_the_nearest_or_all_that_ship(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no study .*rariti\.yaml; did you mean rarity\?"):
        load_study(tmp_path / "rariti.yaml")
    with pytest.raises(ConfigError, match=r"choose from .*fod, paper_1a, .*rarity"):
        load_study(Path("zzzz"))
