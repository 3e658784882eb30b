"""Options as other projects call them: messages name the key or the flag that does the same here."""

import pytest

from retinanet.commands.predict import main as predict_main
from retinanet.commands.train import main as train_main
from retinanet.config.faults import schema_tree
from retinanet.config.load import check_overrides
from retinanet.config.other_names import KEYS
from retinanet.config.schema import Config
from retinanet.config.suggestions import leaf_paths
from retinanet.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("conf=0.3", "conf: unknown key; did you mean eval.shown_score?"),
        ("iou=0.5", "did you mean eval.nms_iou?"),
        ("imgsz=640", "did you mean data.shorter_side?"),
        ("batch=8", "did you mean schedule.batch_size?"),
        ("data.batch=8", "did you mean schedule.batch_size?"),
        ("lr0=0.01", "did you mean schedule.lr?"),
        ("epochs=50", "did you mean schedule.epochs?"),
        ("workers=2", "did you mean data.workers?"),
        ("weights=best.pt", "did you mean model.weights?"),
        ("save_txt=true", "--format yolo"),
        ("source=photos", "retinanet predict BEST.pt PATH"),
        ("device=0", "expected one of auto, cpu, cuda, mps, got 0; CUDA_VISIBLE_DEVICES=0"),
    ],
)
def test_an_option_of_another_project_is_answered_with_ours(word: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_overrides([word])
    assert meant in str(caught.value)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--conf", "0.3"], "--conf: did you mean eval.shown_score?"),
        (["--conf-thres=0.3"], "--conf-thres: did you mean eval.shown_score?"),
        (["--save-txt"], "--save-txt: YOLO labels are written with --format yolo"),
        (["--formt", "csv"], "--formt: did you mean --format?"),
        (["--shown-score", "0.5"], "--shown-score: did you mean eval.shown_score? Config keys are written key=value"),
    ],
)
def test_a_flag_of_another_project_is_answered_with_ours(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        predict_main(["best.pt", "photos", *words], "retinanet predict")
    assert meant in capsys.readouterr().err


def test_an_unknown_flag_without_a_meaning_is_only_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_main(["own", "--qqq"], "retinanet train")
    assert capsys.readouterr().err.endswith("unrecognized arguments: --qqq\n")


def test_every_name_leads_to_a_key_that_there_is() -> None:
    leaves = leaf_paths(schema_tree(Config, {}))
    assert {key for key, _ in KEYS.values()} <= leaves.keys()
