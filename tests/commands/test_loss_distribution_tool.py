"""`retinanet loss-distribution`: the files it writes and the input it refuses."""

import csv
import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tool = Callable[..., tuple[int, str, str]]
NAMES = ["focal gamma 0", "focal gamma 0.5", "focal gamma 1", "focal gamma 2"]


@pytest.fixture
def written(tool: Tool, trained: Path, tmp_path: Path) -> Path:
    """The results of the default losses."""
    code, out, err = tool(
        "loss_distribution.py", trained / "checkpoints/best.pt", "eval.batch_size=4", "--output", tmp_path / "new/out"
    )
    assert (code, err) == (0, "")
    assert "focal gamma 0.5" in out
    assert str(tmp_path / "new/out") in out
    return tmp_path / "new/out"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_picture_curves_shares_and_summary_are_written(written: Path, trained: Path) -> None:
    assert {path.name for path in written.iterdir()} == {
        "loss_distribution.png",
        "curves.csv",
        "shares.csv",
        "summary.json",
    }
    with Image.open(written / "loss_distribution.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
        assert min(picture.size) > 1000
    drawn = {colour for count, colour in colours or [] if count > 500}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73), (0xCC, 0x79, 0xA7)} <= drawn, "four losses"

    curves: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows_of(written / "curves.csv"):
        curves[row["loss"], row["anchors"]].append((float(row["fraction"]), float(row["cumulative"])))
    assert set(curves) == {(name, kind) for name in NAMES for kind in ("positives", "negatives")}
    for points in curves.values():
        assert 100 < len(points) <= 400
        assert points[0] == (0, 0)
        assert points[-1] == (1, 1)
        assert points == sorted(points)
    negatives = [np.array(curves[name, "negatives"])[:, 1] for name in NAMES]
    for flatter, steeper in itertools.pairwise(negatives):
        assert (steeper <= flatter + 1e-6).all(), "gamma moves the loss to the hard negatives"

    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for row in rows_of(written / "shares.csv"):
        for share in ("anchor_share", "loss_share"):
            sums[row["loss"], row["of"], row["by"], share] += float(row[share])
    assert len(sums) == len(NAMES) * 6 * 2
    assert list(sums.values()) == pytest.approx([1.0] * len(sums), abs=1e-6)

    summary = json.loads((written / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"] == 6
    assert [loss["name"] for loss in summary["losses"]] == NAMES
    for loss in summary["losses"]:
        assert loss["options"]["alpha"] == 0.25
        for kind in ("positives", "negatives"):
            assert loss[kind]["samples"] == summary["anchors"][kind]
            hardest = loss[kind]["hardest"]
            assert 0 < hardest["0.001"] < hardest["0.01"] < hardest["0.2"] < 1
            curve = np.array(curves[loss["name"], kind])
            assert 1 - np.interp(0.8, *curve.T) == pytest.approx(hardest["0.2"], abs=0.02)


@pytest.mark.slow
def test_losses_split_and_images_are_chosen(tool: Tool, trained: Path, tmp_path: Path) -> None:
    options = ["--split", "train", "--images", "3", "--loss", "ohem,batch=16", "--loss", "{kind: cross_entropy}"]
    code, out, err = tool("loss_distribution.py", trained / "checkpoints/best.pt", *options, "--output", tmp_path)
    assert (code, err) == (0, "")
    assert "ohem batch 16" in out
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"] == 3
    assert "train split (train.json)" in summary["source"]
    mined, plain = summary["losses"]
    assert mined["options"]["batch"] == 16
    assert mined["negatives"]["effective"] <= 3 * 16 < plain["negatives"]["effective"]


@pytest.mark.slow
def test_the_formulas_need_no_checkpoint(tool: Tool, tmp_path: Path) -> None:
    code, out, err = tool("loss_distribution.py", "--formulas", tmp_path / "formulas")
    assert (code, err) == (0, "")
    names = {path.name for path in (tmp_path / "formulas").iterdir()}
    assert names == {"loss_figure_1.png", "loss_figures_5_6.png", "loss_figure_7.png", "loss_curves.csv"}
    assert all(str(tmp_path / "formulas" / name) in out for name in names)
    code, _, err = tool("loss_distribution.py")
    assert code == 2
    assert "give a checkpoint, or --formulas FOLDER" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--images", "0"], ["--images", "at least 1"]),
        (
            ["--loss", "focal,gama=1", "--loss", "hinge"],
            ["loss.classification.gama", "gamma", "hinge", "cross_entropy"],
        ),
        (["--loss", "balanced_cross_entropy,alpha=1"], ["balanced_cross_entropy alpha 1", "zero for every negative"]),
        (["--loss", "softmax_focal"], ["best.pt", "sigmoid head has 3 outputs", "softmax_focal"]),
        (["--split", "test"], ["--split", "val"]),
        (["data.rot=x"], ["data.rot", "data.root"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(
    tool: Tool, trained: Path, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    code, out, err = tool(
        "loss_distribution.py", trained / "checkpoints/best.pt", *arguments, "--output", tmp_path / "out"
    )
    assert code == 2
    assert "Traceback" not in err + out
    assert err.count("error: ") == 1
    for part in parts:
        assert part in err
    assert not (tmp_path / "out" / "summary.json").exists()


def test_other_errors_have_their_own_codes(tool: Tool, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints/best.pt"
    for code, arguments in ((4, [tmp_path / "none.pt"]), (3, [checkpoint, f"data.root={tmp_path}"])):
        given, _, err = tool("loss_distribution.py", *arguments)
        assert given == code
        assert str(tmp_path) in err
    (tmp_path / "file").write_text("", encoding="utf-8")
    given, _, err = tool("loss_distribution.py", checkpoint, "--output", tmp_path / "file" / "below")
    assert given == 6
    assert "cannot create the folder" in err
