"""`log.callbacks`: functions in the user's files get each row, and their errors do not lose the run."""

import logging
from pathlib import Path

import pytest

import retinanet
from retinanet.config.load import config_from_dict, config_to_dict, load_config, with_overrides
from retinanet.training.callbacks import Callback, find_callbacks, load_callbacks

SOURCE = """
rows = []

def keep(row):
    rows.append(dict(row))
    row.clear()

def fail(row):
    raise ConnectionError("no network")

def get():
    return rows
"""


@pytest.fixture
def logger_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_log.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


@pytest.mark.slow
def test_rows_reach_callbacks_whose_errors_do_not_end_the_run(
    logger_file: Path, tiny_yaml: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = logger_file.parent / "logged.yaml"
    config.write_text(f'base: {tiny_yaml}\nlog: {{callbacks: ["my_log:fail", "my_log:keep"]}}', encoding="utf-8")
    run = retinanet.train(config, output=tmp_path / "run", overrides={"schedule.iterations": 1})
    (get,) = (one.function for one in load_callbacks(["my_log:get"], str(tmp_path)))
    assert get() == run.rows()  # type: ignore[call-arg]
    assert [row["kind"] for row in run.rows()] == ["train", "eval"]
    warnings = [record.getMessage() for record in caplog.records if "log.callbacks" in record.getMessage()]
    assert len(warnings) == 1
    assert "my_log:fail raises ConnectionError: no network (1 error so far); the run goes on" in warnings[0]
    assert load_config(run.folder / "config.yaml", []).log.callback_folder == str(tmp_path)


def test_errors_are_reported_at_each_tenfold_number(caplog: pytest.LogCaptureFixture) -> None:
    def fail(row: dict[str, object]) -> None:
        raise ValueError

    callback = Callback("a:fail", fail)
    with caplog.at_level(logging.WARNING):
        for _ in range(120):
            callback({})
    assert [record.getMessage().split("(")[1].split(" ")[0] for record in caplog.records] == ["1", "10", "100"]


def test_functions_that_do_not_exist_are_named_before_anything_runs(logger_file: Path, tiny_yaml: Path) -> None:
    names = ["my_log:kep", "my_logs:keep", "keep"]
    with pytest.raises(retinanet.ConfigError) as caught:
        find_callbacks(names, str(logger_file.parent))
    for text in ("(3 errors)", "has no function kep; it has keep", "there is no file my_logs.py in", "module:function"):
        assert text in str(caught.value)
    with pytest.raises(retinanet.ConfigError, match="no file my_log"):
        retinanet.train(tiny_yaml, overrides={"log.callbacks": ["my_log:keep"]})


def test_a_checkpoints_config_names_no_folder(logger_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "logged.yaml"
    path.write_text('log: {callbacks: ["my_log:keep"]}', encoding="utf-8")
    config = load_config(path, ["eval.topk=5"])
    assert config.log.callback_folder == str(tmp_path)
    assert with_overrides(config, ["eval.topk=6"]).log == config.log
    assert "callback_folder" not in config_to_dict(config)["log"]
    assert config_from_dict(config_to_dict(config), "x.pt").log.callback_folder is None
