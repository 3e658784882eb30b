"""`auto` in a schedule: numbers that follow from the size of the data."""

import pytest
from pydantic import ValidationError

from retinanet.config.auto import auto_epochs, describe_auto, has_auto, resolve_auto
from retinanet.config.fields import known
from retinanet.config.load import config_from_dict, config_to_dict, with_overrides
from retinanet.config.schedule_keys import ScheduleKeys
from retinanet.config.schema import Config

AUTO = ["schedule.milestones=[]", "schedule.warmup=auto", "schedule.batch_size=auto", "eval.every=auto"]


def automatic(*overrides: str) -> Config:
    return with_overrides(Config(), [*AUTO, "schedule.epochs=auto", "schedule.reference_batch=8", *overrides])


@pytest.mark.parametrize(
    ("images", "epochs", "warmup", "every"),
    # 179 * 24 / 8 = 537 steps; 32 * 200 / 8 = 800; 13 * 5000 / 8 = 8125, a tenth of which is more than 500.
    [
        (1, 4012, 50, 4012 / 12),
        (24, 179, 53, 179 / 12),
        (66, 73, 60, 73 / 12),
        (200, 32, 80, 32 / 12),
        (5000, 13, 500, 13 / 12),
        (20_000, 13, 500, 13 / 12),
    ],
)
def test_length_warmup_and_interval_by_hand(images: int, epochs: int, warmup: int, every: float) -> None:
    config = resolve_auto(automatic(), images)
    assert config.schedule.epochs == epochs == auto_epochs(images)
    assert config.schedule.batch_size == 8
    assert config.schedule.warmup == warmup
    assert config.eval.every == pytest.approx(every)
    assert not has_auto(config)


def test_an_interval_in_steps_and_a_length_in_iterations() -> None:
    config = resolve_auto(with_overrides(automatic(), ["schedule.iterations=600", "eval.unit=steps"]), 80)
    # 600 steps of 8 are 60 epochs of 80 images: a twelfth is 5 epochs or 50 steps.
    assert (config.schedule.warmup, config.eval.every) == (60, 50)
    short = resolve_auto(with_overrides(automatic(), ["schedule.iterations=6", "eval.unit=steps"]), 80)
    assert (short.schedule.warmup, short.eval.every) == (0, 10), "not more often than each epoch"


def test_a_number_is_kept_and_a_config_without_auto_is_returned_as_it_is() -> None:
    config = resolve_auto(automatic("schedule.warmup=7", "schedule.batch_size=4"), 200)
    assert (config.schedule.warmup, config.schedule.batch_size) == (7, 4)
    assert resolve_auto(config, 5) is config


def test_the_result_is_a_valid_config_and_depends_on_nothing_but_the_size() -> None:
    config = resolve_auto(automatic(), 123)
    assert config_from_dict(config_to_dict(config), "saved") == config == resolve_auto(automatic(), 123)


def test_the_line_names_what_was_automatic_and_nothing_else() -> None:
    asked = automatic("schedule.warmup=7")
    line = describe_auto(asked, resolve_auto(asked, 200), 200)
    assert line == "auto for 200 images: epochs=32, batch_size=8, eval.every=2.67 epochs"
    assert describe_auto(Config(), Config(), 200) is None


def test_milestones_need_a_length_that_is_known() -> None:
    with pytest.raises(ValidationError, match="milestones need a length that is known"):
        ScheduleKeys(epochs="auto", milestones=(3.0,))


def test_an_unresolved_value_is_not_taken_for_a_number() -> None:
    with pytest.raises(ValueError, match="depend on the data"):
        known("auto")
    assert known(0) == 0
