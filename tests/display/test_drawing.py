"""Pictures: what is drawn stays inside the picture, does not overlap and can be distinguished."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.display.drawing import (
    Boxes,
    BoxStyle,
    Picture,
    class_colors,
    contact_sheet,
    draw_anchors_on,
    draw_boxes,
    draw_ground_truth_and_predictions,
    fit,
    place_tags,
    save_picture,
)
from retinanet.errors import ConfigError, DataError, ResourceError
from retinanet.run.pictures import draw_curves

RED = (255, 0, 0)
BLUE = (0, 0, 255)
COCO144 = Path("../shared/data/coco144")


def grey(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def share_covered(tags_D4: np.ndarray) -> float:
    """Largest share of a tag that another tag covers."""
    worst = 0.0
    for first, second in itertools.permutations(tags_D4.tolist(), 2):
        width = min(first[2], second[2]) - max(first[0], second[0])
        height = min(first[3], second[3]) - max(first[1], second[1])
        if width > 0 and height > 0:
            worst = max(worst, width * height / ((first[2] - first[0]) * (first[3] - first[1])))
    return worst


def test_80_colors_differ_and_do_not_depend_on_their_number() -> None:
    colors = class_colors(80)
    assert class_colors(5) == colors[:5]
    assert class_colors(0) == []
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    distances = [np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(colors, 2)]
    assert min(distances) > 10
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(colors[:8], 2)) > 60


@pytest.mark.parametrize("seed", range(5))
def test_tags_stay_inside_and_apart(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 1, (40, 2)) * [600, 440]
    boxes = np.concatenate([corners, corners + random.uniform(1, 120, (40, 2))], axis=1)
    sizes = np.stack([random.integers(20, 100, 40), np.full(40, 16)], axis=1)
    tags = place_tags(boxes, sizes, (640, 480))
    assert (tags[:, :2] >= 0).all()
    assert (tags[:, 2:] <= [640, 480]).all()
    assert ((tags[:, 2:] - tags[:, :2]) == sizes).all()
    assert share_covered(tags) == 0


def test_tags_of_one_place_move_apart() -> None:
    tags = place_tags(np.tile([300.0, 200.0, 320.0, 220.0], (12, 1)), np.tile([60, 16], (12, 1)), (640, 480))
    assert share_covered(tags) == 0
    assert tags[0].tolist() == [300, 184, 360, 200]


def test_a_tag_larger_than_the_picture_is_cut_to_it() -> None:
    assert place_tags(np.array([[2.0, 2.0, 5.0, 5.0]]), [[500, 40]], (30, 20)).tolist() == [[0, 0, 30, 20]]


def test_a_box_is_outlined_on_its_own_pixels_and_x2_is_exclusive() -> None:
    image = grey(480, 640)
    drawn = draw_boxes(image, Boxes([[100, 200, 300, 400]], [RED], ["a"]))
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    red = (drawn[201:, :] == RED).all(axis=2)
    rows, columns = np.nonzero(red)
    assert (rows.max() + 201, columns.min(), columns.max()) == (399, 100, 299)
    assert (drawn[300, 110:290] == 128).all()


def test_the_tag_has_text_that_contrasts() -> None:
    for color, ink in ((BLUE, 255), ((255, 255, 0), 0)):
        drawn = draw_boxes(grey(480, 640), Boxes([[100, 200, 300, 400]], [color], ["HHHH"]))
        tag = drawn[186:198, 100:130].reshape(-1, 3)
        assert (tag == color).all(axis=1).any()
        assert (tag == ink).all(axis=1).any()


def test_a_dashed_outline_has_gaps_and_a_halo_surrounds_it() -> None:
    box = Boxes([[100, 200, 300, 400]], [RED], dashed=[True])
    edge = draw_boxes(grey(480, 640), box)[210:390, 100]
    red = (edge == RED).all(axis=1)
    assert 0.5 < red.mean() < 0.7
    assert (edge[~red] == 128).all()
    drawn = draw_boxes(grey(480, 640), box, BoxStyle(halo=True))
    assert (drawn[300, [99, 102, 297, 300]] == 0).all()
    assert (drawn[210:390, 100][~red] == 0).all()


def test_letters_beyond_ascii_are_written() -> None:
    texts = ("γ", "é", "ж")
    tags = [draw_boxes(grey(480, 640), Boxes([[100, 200, 300, 400]], [RED], [text]))[:200] for text in texts]
    assert len({tag.tobytes() for tag in tags}) == len(texts)


def test_no_detections_leave_the_picture_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (420, 500, 3), dtype=np.uint8)
    assert (draw_boxes(image, Boxes(np.zeros((0, 4)), [], scores=[])) == image).all()
    assert (draw_boxes(image, Boxes([], [])) == image).all()


@pytest.mark.parametrize(("halo", "dashed"), [(False, ()), (True, [True] * 6)])
@pytest.mark.parametrize("size", [(1, 1), (7, 400), (64, 48), (480, 640), (3000, 40)])
def test_boxes_at_edges_outside_and_of_one_pixel_can_be_drawn(
    size: tuple[int, int], halo: bool, dashed: Sequence[bool]
) -> None:
    height, width = size
    boxes = [[0, 0, width, height], [width - 1, height - 1, width, height], [-9, -9, 1, 1], [0, 0, 0, 0]]
    boxes += [[width / 2, height / 2, width / 2 + 1, height / 2 + 1], [width + 5, height + 5, width + 9, height + 9]]
    named = Boxes(boxes_D4=boxes, colors=class_colors(6), labels=["name"] * 6, scores=[0.5] * 6, dashed=dashed)
    drawn = draw_boxes(grey(*size), named, BoxStyle(halo=halo))
    assert drawn.shape[0] * width == drawn.shape[1] * height
    assert not (drawn == 128).all()


@pytest.mark.parametrize("dashed", [False, True])
def test_one_pixel_is_one_pixel(dashed: bool) -> None:
    drawn = draw_boxes(grey(480, 640), Boxes([[300, 200, 301, 201]], [RED], dashed=[dashed]))
    assert tuple(drawn[200, 300]) == RED


def test_small_pictures_are_enlarged_by_a_whole_factor_and_large_ones_are_not() -> None:
    one = Boxes([[30, 20, 60, 40]], [RED], ["a"])
    drawn = draw_boxes(grey(60, 90), one)
    assert drawn.shape == (300, 450, 3)
    rows, columns = np.nonzero((drawn[102:] == RED).all(axis=2))
    assert (rows.max() + 102, columns.min(), columns.max()) == (199, 150, 299)
    assert draw_boxes(grey(399, 400), one).shape == (399, 400, 3)
    assert draw_boxes(grey(60, 90), one, BoxStyle(enlarge=1)).shape == (60, 90, 3)


def test_80_classes_in_one_crowded_picture_keep_every_tag() -> None:
    random = np.random.default_rng(1)
    corners = random.uniform(50, 500, (80, 2)) * [1, 0.8]
    boxes = np.concatenate([corners, corners + random.uniform(8, 60, (80, 2))], axis=1)
    colors, labels = class_colors(80), [f"class {i}" for i in range(80)]
    crowded = Boxes(boxes_D4=boxes, colors=colors, labels=labels, scores=[0.5] * 80)
    drawn = draw_boxes(grey(480, 640), crowded)
    assert drawn.shape == (960, 1280, 3)
    codes, counts = np.unique(drawn.astype(np.int64) @ [65536, 256, 1], return_counts=True)
    pixels = dict(zip(codes.tolist(), counts.tolist()))
    assert all(pixels[red * 65536 + green * 256 + blue] > 300 for red, green, blue in colors)


@pytest.mark.parametrize(
    "wrong", [{"labels": ["a", "b"]}, {"labels": ["a"], "scores": []}, {"colors": []}, {"dashed": [True, False]}]
)
def test_lengths_that_differ_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="differ in length"):
        draw_boxes(grey(480, 640), Boxes(**{"boxes_D4": [[0, 0, 9, 9]], "colors": [RED], **wrong}))


def test_panels_show_the_truth_left_and_what_scores_enough_right() -> None:
    truth = Boxes([[100, 200, 300, 400]], [RED], ["a"])
    found = Boxes(
        boxes_D4=[[100, 200, 300, 400], [400, 100, 500, 200]],
        colors=[BLUE, (0, 255, 0)],
        labels=["b", "c"],
        scores=[0.5, 0.49],
    )
    drawn = draw_ground_truth_and_predictions(grey(480, 640), truth, found, threshold=0.5, caption="image 7")
    middle = drawn.shape[1] // 2
    assert (drawn[:, :middle] == RED).all(axis=2).any()
    assert not (drawn[:, middle:] == RED).all(axis=2).any()
    assert (drawn[:, middle:] == BLUE).all(axis=2).any()
    assert not (drawn == (0, 255, 0)).all(axis=2).any()
    with pytest.raises(ValueError, match="need scores"):
        draw_ground_truth_and_predictions(grey(480, 640), truth, truth, threshold=0.5)


def test_both_panels_have_one_scale_when_only_one_is_crowded() -> None:
    box = np.tile([100, 200, 130, 230], (60, 1))
    many = Boxes(boxes_D4=box, colors=[RED] * 60, labels=["a long name"] * 60, scores=[0.9] * 60)
    none = Boxes([], [])
    drawn = draw_ground_truth_and_predictions(grey(480, 640), none, many, threshold=0.5)
    assert drawn.shape[1] == 2 * 1280 + 3 * 8


def test_positive_anchors_take_the_color_of_their_box_and_missed_boxes_are_red() -> None:
    boxes = [[100, 100, 200, 200], [400, 300, 450, 350]]
    drawn = draw_anchors_on(grey(480, 640), [[80, 110, 220, 190]], [0], boxes)
    assert drawn.shape == (960, 1280, 3)
    first = class_colors(1)[0]
    assert tuple(drawn[300, 160]) == first
    assert tuple(drawn[650, 800]) == (225, 30, 30)
    assert draw_anchors_on(grey(480, 640), [], [], []).shape == drawn.shape


def test_pictures_are_shrunk_to_fit_and_never_enlarged() -> None:
    assert fit(grey(40, 30), 30, 40).shape == (40, 30, 3)
    assert fit(grey(80, 30), 30, 40).shape == (40, 15, 3)
    assert fit(grey(40, 90), 30, 40).shape[1] == 30


def test_a_contact_sheet_holds_every_picture_unscaled() -> None:
    pictures = [np.full((20 + 10 * i, 30, 3), 40 * i, dtype=np.uint8) for i in range(5)]
    sheet = contact_sheet(pictures, columns=3, title="title")
    for i, picture in enumerate(pictures):
        assert (sheet == 40 * i).all(axis=2).sum() >= picture.shape[0] * picture.shape[1]
    assert sheet.shape[1] == 3 * 30 + 4 * 8
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([], columns=3)


def test_curves_are_drawn_from_a_log_and_need_rows(tmp_path: Path) -> None:
    rows = [
        {"kind": "train", "step": i, "epoch": 0.1, "loss": 1 / i, "loss_class": 0.5, "lr": 0.01} for i in range(1, 9)
    ]
    rows += [{"kind": "eval", "step": 8, "AP": -1.0, "AP50": 0.5}]
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    draw_curves(log, tmp_path / "pictures/curves.png")
    with Image.open(tmp_path / "pictures/curves.png") as picture:
        colors = picture.convert("RGB").getcolors(1 << 20)
        assert picture.width > 600
        assert colors is not None
        assert len(colors) > 20
    log.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no rows to draw"):
        draw_curves(log, tmp_path / "curves.png")
    with pytest.raises(ResourceError, match="cannot be read"):
        draw_curves(tmp_path / "absent.jsonl", tmp_path / "curves.png")


def test_pictures_are_saved_whole_by_suffix(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    save_picture(tmp_path / "new/a.png", image)
    save_picture(tmp_path / "new/b.JPG", image)
    with Image.open(tmp_path / "new/a.png") as png, Image.open(tmp_path / "new/b.JPG") as jpeg:
        assert (np.array(png) == image).all()
        assert (jpeg.format, jpeg.size) == ("JPEG", (40, 30))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.JPG"]


def test_pictures_that_cannot_be_saved_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must end in one of"):
        save_picture(tmp_path / "a.gif", grey(4, 4))
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot be written"):
        save_picture(tmp_path / "file/a.png", grey(4, 4))
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(ResourceError, match="cannot be written"):
        save_picture(tmp_path / "taken.png", grey(4, 4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.png"]


def test_real_crowded_images_keep_their_tags_apart() -> None:
    if not COCO144.is_dir():
        pytest.skip(f"{COCO144} is absent: real COCO images are needed")
    data = json.loads((COCO144 / "annotations/instances_val2017.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in data["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    for image_id, size in sizes.items():
        annotations = [a for a in data["annotations"] if a["image_id"] == image_id]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]).reshape(-1, 4)
        tags = place_tags(boxes, [(6 * len(names[a["category_id"]]) + 4, 16) for a in annotations], size)
        assert share_covered(tags) < 0.5, image_id
