"""What users read: links lead somewhere, named files exist, and command lines are ones that the commands take."""

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.__main__ import COMMANDS, run_command

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "data/README.md", "benchmarks/**/*.md")
    for page in PROJECT.glob(pattern)
    if not page.name.startswith(".")
)
CARDS = sorted((PROJECT / "configs").rglob("*.yaml"))

OLD_COMMAND_LINES = """
prepare_data.py coco --root data/coco
train.py configs/coco/r50_600_1x.yaml
train.py configs/coco/r50_600_1x.yaml precision=auto
train.py configs/bccd.yaml data.root=PATH output=runs/mine --resume --overwrite --print-config
eval.py runs/quickstart/checkpoints/best.pt
eval.py --ground-truth GT.json --detections DT.json.gz --images FOLDER
compare.py A.json B.json --ground-truth GT.json --images FOLDER
anchors.py configs/bccd.yaml data.root=PATH
predict.py runs/quickstart/checkpoints/best.pt photos/ *.png --thresholds eval.json
config.py diff configs/recipes/torchvision_v1.yaml configs/recipes/detectron2.yaml
convert_weights.py torchvision_v1 retinanet_coco.pth OUT.pt
convert_weights.py to_torchvision_v1 BEST.pt OUT.pth
export.py runs/quickstart/checkpoints/best.pt quickstart.onnx --nms
predict.py quickstart.onnx photos/
ablate.py configs/ablations/quickstart.yaml --dry-run
loss_distribution.py runs/quickstart/checkpoints/best.pt
ablate.py STUDY --resume --gpus 0,1,2,3
ablate.py STUDY --cell 3
ablate.py STUDY --report
prepare_data.py shapes --output data/shapes --train 2000 --val 200 --size 256 256
prepare_data.py voc VOC --output OUT --split train=list.txt --clip --overwrite
prepare_data.py yolo YOLO --output OUT --split train=list.txt --clip --overwrite
"""
"""Of README and Makefile as of 2026-11-25, without `python tools/`: they go on working."""

OLD_NAMES = {
    **{name: name for name in ("train", "eval", "predict", "ablate", "compare", "anchors", "config", "export")},
    "convert_weights": "convert",
    "loss_distribution": "loss-distribution",
    "prepare_data": "data",
}


def anchors_of(page: Path) -> set[str]:
    """The anchors that a code host makes of a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
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


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(PROJECT)))
def test_named_files_exist(page: Path) -> None:
    # A recipe's card names files of the project that it reproduces.
    text = re.sub(
        r"^# (Published|Source) .*?(?=^# (?!Source)[A-Z])",
        "",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    named = set(
        re.findall(
            r"(?<![\w/.])((?:configs|tests|tools|benchmarks|docs|retinanet)/[\w/.-]+\.(?:ya?ml|py|md|sh|json))", text
        )
    )
    assert not [name for name in sorted(named) if not (PROJECT / name).exists()]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words after `retinanet` in code blocks, inline code and the commands of cards."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    blocks = re.findall(r"^```\w*\n(.*?)^```", joined, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", joined)
    lines += [line.lstrip("# ") for line in joined.splitlines() if line.startswith("#")]
    for line in lines:
        found = re.search(r"(?:^|[\s'])retinanet ([a-z-]+(?: .*)?)$", line.split("  #")[0])
        if (found and found[1].split()[0] in COMMANDS) or (found and re.search(r"-m retinanet|^\s*retinanet ", line)):
            with contextlib.suppress(ValueError):
                yield shlex.split(found[1].rstrip("'"), comments=True)


@cache
def flags_of(command: str, subcommand: str | None) -> frozenset[str]:
    """The flags that a command's help explains."""
    out = io.StringIO()
    words = [*([subcommand] if subcommand else []), "--help"]
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        run_command(command, words)
    assert ended.value.code == 0, f"{command} {words}"
    return frozenset(re.findall(r"--[a-z0-9-]+", out.getvalue()))


def wrong_flags(words: list[str]) -> list[str]:
    command, *rest = words
    if command not in COMMANDS:
        return [command]
    names = {"data": ("check", "convert", "fetch", "shapes", "coco", "voc", "yolo"), "config": ("list", "show", "diff")}
    sub = next((word for word in rest if word in names.get(command, ())), None)
    known = flags_of(command, sub)
    return [word for word in rest if word.startswith("--") and word.split("=")[0] not in known]


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(PROJECT)))
def test_command_lines_can_be_typed(page: Path) -> None:
    wrong = [(words, wrong_flags(words)) for words in command_lines(page.read_text(encoding="utf-8"))]
    assert not [entry for entry in wrong if entry[1]]


def test_every_command_is_shown_in_the_readme() -> None:
    shown = {words[0] for words in command_lines((PROJECT / "README.md").read_text(encoding="utf-8"))}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("line", OLD_COMMAND_LINES.strip().splitlines())
def test_old_command_lines_are_still_taken(line: str) -> None:
    tool, *rest = shlex.split(line)
    door = (PROJECT / "tools" / tool).read_text(encoding="utf-8")
    assert f"`retinanet {OLD_NAMES[tool.removesuffix('.py')]}`" in door
    assert wrong_flags([OLD_NAMES[tool.removesuffix(".py")], *rest]) == []


def test_every_config_has_a_card() -> None:
    """What it is, the exact command, what was measured."""
    for card in CARDS:
        text = card.read_text(encoding="utf-8")
        assert text.startswith("# "), card
        assert re.search(r"^# Command +\S", text, flags=re.MULTILINE), card
        assert re.search(r"^# Measured +\S", text, flags=re.MULTILINE), card
