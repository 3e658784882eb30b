"""What users read: links lead somewhere, named files exist, and command lines are accepted as they are written."""

import argparse
import ast
import contextlib
import importlib
import io
import re
import runpy
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from places import PROJECT
from test_architecture import FLOORS

from retinanet.__main__ import COMMANDS, command_main
from retinanet.commands.arguments import split_overrides
from retinanet.config.load import check_overrides, load_config
from retinanet.config.shipped import find_config, find_study
from retinanet.errors import UserError

Main = Callable[[Sequence[str], str], None]

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "data/README.md", "benchmarks/**/*.md")
    for page in PROJECT.glob(pattern)
    if not page.name.startswith(".")
)
CARDS = sorted((PROJECT / "configs").rglob("*.yaml"))
FILES = [*PAGES, *CARDS]

OLD_COMMAND_LINES = r"""
python tools/prepare_data.py coco --root data/coco
python tools/train.py configs/coco/r50_600_1x.yaml
torchrun --nproc-per-node 8 tools/train.py configs/coco/r50_600_1x.yaml precision=auto
python tools/train.py configs/bccd.yaml data.root=PATH data.train_annotations=annotations/train.json \
    data.train_images=images data.val_annotations=annotations/val.json data.val_images=images output=runs/mine
python tools/train.py configs/quickstart.yaml --resume
python tools/train.py configs/quickstart.yaml --overwrite --print-config
python tools/eval.py runs/quickstart/checkpoints/best.pt
python tools/eval.py --ground-truth GT.json --detections DT.json.gz --images FOLDER
python tools/compare.py A.json B.json --ground-truth GT.json --images FOLDER
python tools/anchors.py configs/bccd.yaml data.root=PATH
python tools/predict.py runs/quickstart/checkpoints/best.pt photos/ '*.png'
python tools/predict.py runs/quickstart/checkpoints/best.pt photos/ --thresholds eval.json
python tools/predict.py runs/quickstart/checkpoints/best.pt 'data/shapes/val/00000*.jpg' \
    --output runs/quickstart/predictions
python tools/config.py diff configs/recipes/torchvision_v1.yaml configs/recipes/detectron2.yaml
python tools/convert_weights.py torchvision_v1 retinanet_coco.pth OUT.pt
python tools/convert_weights.py to_torchvision_v1 BEST.pt OUT.pth
python tools/export.py runs/quickstart/checkpoints/best.pt quickstart.onnx --nms
python tools/predict.py quickstart.onnx photos/
python tools/ablate.py configs/ablations/quickstart.yaml
python tools/ablate.py configs/ablations/quickstart.yaml --dry-run
python tools/loss_distribution.py runs/quickstart/checkpoints/best.pt
python tools/ablate.py STUDY --resume --gpus 0,1,2,3
python tools/ablate.py STUDY --cell $SLURM_ARRAY_TASK_ID
torchrun --nproc-per-node 8 tools/ablate.py STUDY --cell 3
python tools/ablate.py STUDY --report
python tools/prepare_data.py shapes --output data/shapes --train 2000 --val 200 --size 256 256
python tools/prepare_data.py voc VOC --output OUT --split train=list.txt --clip --overwrite
python tools/prepare_data.py yolo YOLO --output OUT --split train=list.txt --clip --overwrite
"""
"""All of the README of 2026-11-25, and those of the Makefile and data/README.md: they still work in a checkout."""


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def anchors_of(page: Path) -> set[str]:
    """The anchors that code hosts make of a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            dead.append(target)
    assert not dead


def named_files(text: str) -> set[str]:
    """Paths of this project, `a_{b,c}.py` written out; a path with the placeholder NAME is none."""
    for whole, start, names, end in re.findall(r"(([\w/.-]*)\{([\w,]+)\}([\w/.-]*))", text):
        text = text.replace(whole, " ".join(start + name + end for name in names.split(",")))
    path = r"(?:configs/[\w/.-]*\w|(?:tests|tools|benchmarks|docs|retinanet)/[\w/.-]+\.(?:ya?ml|py|md|sh|json))"
    return {name for name in re.findall(rf"(?<![\w/.]){path}", text) if "NAME" not in name}


@pytest.mark.parametrize("page", FILES, ids=name_of)
def test_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # There a recipe's card names files of the project that it reproduces.
    text = re.sub(r"^# (?:Source|Published) .*?(?=^# \S|^\w)", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not [name for name in sorted(named_files(text)) if not (PROJECT / name).exists()]
    text = re.sub(r"https://\S+", "", text)  # other projects' tests
    tests = {file.name for file in (PROJECT / "tests").rglob("*.py")}
    assert set(re.findall(r"\btest_\w+\.py\b", text)) <= tests


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shown_python_imports_what_exists(page: Path) -> None:
    for module, names in re.findall(r"from (retinanet[\w.]*) import ([\w, ]+)", page.read_text(encoding="utf-8")):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.split(" as ")[0].strip()), (module, name)


def code_of(page: Path) -> Iterator[tuple[str, bool]]:
    """What a page shows as commands, and whether each is whole: inline code may be a part."""
    text = re.sub(r"\\\n *", "", page.read_text(encoding="utf-8"))
    if page.suffix == ".yaml":
        yield from ((line.lstrip("# "), True) for line in text.splitlines() if line.startswith("#"))
        return
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield from ((line, True) for line in block.splitlines() if language != "python")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from ((code.replace("\n", " "), False) for code in re.findall(r"`([^`]+)`", prose))


def command_lines(page: Path) -> Iterator[tuple[list[str], bool]]:
    """The words after `retinanet` of every command line on a page, and whether the line is whole."""
    for code, whole in code_of(page):
        for before, line in re.findall(r"^(.*?)(?:^|(?<=[\s']))retinanet ([a-z].*)$", code):
            assert "torchrun" not in before or before.endswith("-m "), f"torchrun needs -m retinanet: {code}"
            quoted = before.endswith("'")
            yield shlex.split(line.partition("'")[0] if quoted else line, comments=True), whole


@cache
def flags_of(main: Main, subcommand: str) -> frozenset[str]:
    """The flags that the help of a command, or of its subcommand, explains."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([*subcommand.split(), "--help"], "retinanet")
    assert ended.value.code == 0, subcommand
    return frozenset(re.findall(r"--[a-z0-9-]+", out.getvalue()))


class ParsedError(Exception):
    """Raised in place of everything that a command does after it has parsed its arguments."""


def usage_errors(main: Main, words: Sequence[str]) -> list[str]:
    """What a command's parser prints about a whole command line, which is not run."""

    def parse_alone(parse: Callable[..., object]) -> Callable[..., None]:
        def parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
            parse(parser, words)
            raise ParsedError

        return parsed

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, parse_alone(getattr(argparse.ArgumentParser, name)))
        try:
            main(words, "retinanet")
        except ParsedError:
            return []
        except SystemExit as ended:
            return [out.getvalue().splitlines()[-1]] if ended.code else []
    raise AssertionError(f"{words}: parsed nothing")


def mistakes(command: str, words: Sequence[str], whole: bool = True) -> list[str]:
    """What the command would not accept: flags, names of configs and their keys; on a whole line, any usage error.

    Words in capitals are placeholders.
    """
    if command not in COMMANDS:
        return [f"no command {command}"]
    positional = [word for word in words if not word.startswith("--")]
    subcommand = positional[0] if command in ("data", "config") and positional else ""
    known = flags_of(command_main(command), subcommand)
    wrong = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
    wrong += usage_errors(command_main(command), words) if whole and not wrong else []
    # Words such as train=list.txt belong to `--split`.
    overrides, others = ([], positional) if command == "data" else split_overrides(positional)
    files: list[Path] = []
    if command in ("train", "anchors", "config"):
        files = [find_config(word) for word in others[subcommand != "" :] if not word.isupper()]
    elif command == "ablate":
        files = [find_study(word) for word in others[:1] if not word.isupper()]
    wrong += [f"no config {file}" for file in files if not file.is_file()]
    try:
        if command == "train" and files and not wrong:
            load_config(files[0], overrides)
        check_overrides(overrides)
    except UserError as error:
        wrong.append(str(error))
    return wrong


@pytest.mark.parametrize("page", FILES, ids=name_of)
def test_command_lines_are_accepted(page: Path) -> None:
    wrong = {" ".join(words): mistakes(words[0], words[1:], whole) for words, whole in command_lines(page)}
    assert not {line: found for line, found in wrong.items() if found}


def test_every_command_is_shown_in_the_readme() -> None:
    assert {words[0] for words, _ in command_lines(PROJECT / "README.md")} == set(COMMANDS)


@pytest.mark.parametrize("line", OLD_COMMAND_LINES.replace("\\\n", "").strip().splitlines())
def test_old_command_lines_are_still_accepted(line: str) -> None:
    words = shlex.split(line)
    tool = next(place for place, word in enumerate(words) if word.startswith("tools/"))
    main = runpy.run_path(str(PROJECT / words[tool]))["main"]
    command = {command_main(name): name for name in COMMANDS}[main]
    assert mistakes(command, words[tool + 1 :]) == []


def test_mistakes_are_found() -> None:
    assert mistakes("trian", []) == ["no command trian"]
    assert mistakes("train", ["quickstart", "--resum"]) == ["--resum"]
    assert mistakes("train", ["quikstart"]) == ["no config quikstart"]
    assert "schedule.lr" in mistakes("train", ["quickstart", "schedule.lrr=1"])[0]
    assert "eval.topk" in mistakes("eval", ["best.pt", "eval.topk=-3"])[0]
    assert mistakes("data", ["shapes", "--split", "train=list.txt"]) == ["--split"]
    assert "required: B" in mistakes("compare", ["A.json", "--ground-truth", "GT.json"])[0]
    assert mistakes("compare", ["A.json"], whole=False) == []
    assert "--size: 'no' is not a whole number" in mistakes("data", ["shapes", "--size", "256", "no"])[0]
    assert named_files("configs/none.yaml, tests/test_{a,b}.py, tools/NAME.py, configs/coco.") == {
        *("configs/none.yaml", "tests/test_a.py", "tests/test_b.py", "configs/coco")
    }


@pytest.mark.parametrize("page", CARDS, ids=name_of)
def test_every_config_has_a_card(page: Path) -> None:
    """What it is, the exact command, what was measured."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert re.search(r"^# Command +\S", text, flags=re.MULTILINE)
    assert re.search(r"^# Measured +\S", text, flags=re.MULTILINE)


def architecture() -> str:
    return (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_floors_on_paper_are_those_that_are_checked() -> None:
    floors: list[list[str]] = []
    for number, room in re.findall(r"^\| (\d*) *\| `(\w+)(?:/|\.py)` \|", architecture(), flags=re.MULTILINE):
        if number:
            floors.append([])
            assert int(number) == len(floors)
        floors[-1].append(room)
    assert floors == [[room for room in rooms if "." not in room] for rooms in FLOORS]


def test_the_way_from_config_to_loss_is_as_described() -> None:
    """Every function is where the page says; up to the criterion each calls the next, `build_class_loss` the others."""
    places = re.findall(r"`([\w/]+\.py):\s(\w+)`", architecture())
    bodies = {}
    for file, name in places:
        tree = ast.parse((PROJECT / "retinanet" / file).read_text(encoding="utf-8"))
        (body,) = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
        bodies[name] = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    steps = re.findall(r"^\d\. `[\w/]+\.py: (\w+)`", architecture(), flags=re.MULTILINE)
    assert len(steps) == 9, "the number in the text"
    until = steps.index("criterion")
    assert [(name, called) for name, called in pairwise(steps[: until + 1]) if called not in bodies[name]] == []
    assert {*steps[until + 1 :], "FusedLoss"} <= bodies["build_class_loss"]
