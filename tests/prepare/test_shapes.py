"""The generated data set: reproducible to the byte, valid COCO, exact boxes, the documented mixture."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from retinanet.errors import ConfigError, DataError, ResourceError
from retinanet.prepare import shapes
from retinanet.prepare.shapes import generate_shapes
from retinanet.prepare.shapes_draw import (
    CLASS_NAMES,
    SOLID_DISTRACTORS,
    STROKE_DISTRACTORS,
    draw_coverage,
    place_outline,
    unit_outline,
)
from retinanet.prepare.shapes_scene import Scene, SceneMix, draw_scene, scene_annotations

SIZE = (96, 128)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def generate(folder: Path, train: int = 5, val: int = 2, seed: int = 3) -> Path:
    generate_shapes(folder, train_images=train, val_images=val, size=SIZE, seed=seed)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(11, 0, index, (256, 256)) for index in range(120)]


@pytest.fixture(scope="module")
def annotations(scenes: list[Scene]) -> list[dict]:
    return [a for i, scene in enumerate(scenes) for a in scene_annotations(scene, i + 1, 1)]


def test_same_parameters_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, second = digests(generate(tmp_path / "a")), digests(generate(tmp_path / "b"))
    other = digests(generate(tmp_path / "c", seed=4))
    assert first == second
    assert len(first) == 5 + 2 + 3
    assert all(first[name] != other[name] for name in first)
    assert len(set(first.values())) == len(first), "two images, or train and val, are the same"


def test_an_image_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    few, many = generate(tmp_path / "few", train=5), generate(tmp_path / "many", train=8, val=4)
    for name, digest in digests(few).items():
        if name.endswith(".jpg"):
            assert digests(many)[name] == digest
    fewer, more = (json.loads((f / "annotations/train.json").read_text(encoding="utf-8")) for f in (few, many))
    assert more["images"][:5] == fewer["images"]
    assert more["annotations"][: len(fewer["annotations"])] == fewer["annotations"]


def test_scene_does_not_depend_on_order() -> None:
    forward = [draw_scene(0, 1, i, SIZE).image for i in (0, 1, 2)]
    backward = [draw_scene(0, 1, i, SIZE).image for i in (2, 1, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(forward, reversed(backward)))


def test_files_are_valid_coco_and_real_jpeg(tmp_path: Path) -> None:
    folder = generate(tmp_path / "set", train=6)
    for split, count in (("train", 6), ("val", 2)):
        path = folder / "annotations" / f"{split}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert [c["name"] for c in content["categories"]] == list(CLASS_NAMES)
        assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
        coco = COCO(str(path))
        assert len(coco.getImgIds()) == count
        assert {a["image_id"] for a in content["annotations"]} <= set(coco.getImgIds())
        assert {a["category_id"] for a in content["annotations"]} <= set(coco.getCatIds())
        for image in content["images"]:
            with Image.open(folder / split / image["file_name"]) as stored:
                stored.load()
                assert (stored.format, stored.mode) == ("JPEG", "RGB")
                assert (stored.height, stored.width) == SIZE == (image["height"], image["width"])


def test_boxes_are_tight_around_the_visible_pixels(scenes: list[Scene]) -> None:
    for scene in scenes[:60]:
        found = scene_annotations(scene, 1, 1)
        assert len(found) == len(scene.classes) == len(np.unique(scene.owners)) - 1
        for i, annotation in enumerate(found):
            x, y, w, h = annotation["bbox"]
            mask = scene.owners == i + 1
            inside = mask[y : y + h, x : x + w]
            assert 0 <= x < x + w <= 256
            assert 0 <= y < y + h <= 256
            assert inside.sum() == mask.sum() == annotation["area"]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_an_object_differs_from_what_surrounds_it(scenes: list[Scene]) -> None:
    """The owner map and the pixels agree: an object's pixels differ from those just outside it."""
    apart = 0
    total = 0
    for scene in scenes[:60]:
        for i in range(len(scene.classes)):
            mask = scene.owners == i + 1
            near = np.zeros_like(mask)
            for dy, dx in ((0, 3), (0, -3), (3, 0), (-3, 0)):
                near |= np.roll(mask, (dy, dx), (0, 1))
            outside = scene.image[near & ~mask].astype(float).mean(axis=0)
            inside = scene.image[mask].astype(float).mean(axis=0)
            apart += float(np.sqrt(np.mean((inside - outside) ** 2))) > 25
            total += 1
    assert apart > 0.9 * total


def test_sizes_span_the_range(annotations: list[dict]) -> None:
    sides = np.array([max(a["bbox"][2:]) for a in annotations])
    assert sides.min() <= 9
    assert 150 <= sides.max() <= 200
    parts = np.histogram(sides, bins=[0, 16, 32, 64, 128, 201])[0] / len(sides)
    assert (parts > 0.01).all(), parts
    assert parts[2] == parts.max(), parts


def test_mixture_of_classes_counts_and_empty_images(scenes: list[Scene], annotations: list[dict]) -> None:
    classes = Counter(a["category_id"] for a in annotations)
    assert set(classes) == {1, 2, 3}
    assert min(classes.values()) > 0.6 * max(classes.values())
    counts = Counter(len(scene.classes) for scene in scenes)
    assert 1 <= counts[0] <= 16
    assert set(range(2, 10)) <= set(counts)
    assert max(counts) <= 11
    touching = sum(a["bbox"][0] == 0 or a["bbox"][1] == 0 for a in annotations)
    assert 0.01 < touching / len(annotations) < 0.2


@pytest.mark.parametrize("kind", CLASS_NAMES)
@pytest.mark.parametrize("side", [8.0, 40.0, 180.0])
def test_coverage_has_the_requested_long_side(kind: str, side: float) -> None:
    rng = np.random.default_rng(0)
    outline = place_outline(unit_outline(kind, rng), 1.2, 0.7, side, 0.0)
    cover, edge = draw_coverage(outline, (0.3, 0.6), 0.0)
    rows, columns = np.flatnonzero(cover.max(axis=1) >= 128), np.flatnonzero(cover.max(axis=0) >= 128)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    # Tips thin out below one pixel.
    assert side - 2.5 <= longest <= side + 1.5
    assert cover[[0, -1]].max() == 0
    assert cover[:, [0, -1]].max() == 0
    assert edge.max() == 0


def test_no_distractor_has_the_form_of_a_class() -> None:
    """Filled forms of one size, best overlap over rotations: a class against every solid distractor."""
    rng = np.random.default_rng(1)

    def centred(kind: str, angle: float) -> np.ndarray:
        cover, _ = draw_coverage(place_outline(unit_outline(kind, rng), 1.0, angle, 60.0, 0.0), (0.0, 0.0), 0.0)
        canvas = np.zeros((140, 140), bool)
        y, x = np.nonzero(cover >= 128)
        canvas[y - int(y.mean()) + 70, x - int(x.mean()) + 70] = True
        return canvas

    for kind in CLASS_NAMES:
        form = centred(kind, 0.0)
        for other in SOLID_DISTRACTORS:
            overlaps = []
            for angle in np.arange(0, 2 * np.pi, 0.2):
                against = centred(other, float(angle))
                overlaps.append((form & against).sum() / (form | against).sum())
            assert max(overlaps) < 0.93, (kind, other)
    assert not set(CLASS_NAMES) & {*SOLID_DISTRACTORS, *STROKE_DISTRACTORS}


def test_a_second_call_returns_at_once_and_touches_nothing(tmp_path: Path) -> None:
    folder = generate(tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    calls: list[tuple[int, int]] = []
    generate_shapes(
        folder,
        train_images=5,
        val_images=2,
        size=SIZE,
        seed=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == []
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_test_split_changes_nothing_else(tmp_path: Path) -> None:
    plain = digests(generate(tmp_path / "plain"))
    generate_shapes(tmp_path / "three", train_images=5, val_images=2, test_images=3, size=SIZE, seed=3)
    three = digests(tmp_path / "three")
    assert {name: plain[name] for name in plain if name != shapes.MANIFEST}.items() <= three.items()
    added = set(three) - set(plain)
    assert added == {"annotations/test.json", *(f"test/{i:06d}.jpg" for i in (1, 2, 3))}
    assert not {three[name] for name in added} & set(plain.values())
    assert json.loads((tmp_path / "three" / shapes.MANIFEST).read_text(encoding="utf-8"))["test_images"] == 3


def test_other_parameters_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = generate(tmp_path / "set")
    before = digests(folder)
    with pytest.raises(DataError, match="other parameters; choose another folder"):
        generate(folder, train=6)
    assert digests(folder) == before


def test_a_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(DataError, match="not a generated data set"):
        generate(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert (generate(tmp_path / "set") / shapes.MANIFEST).is_file()


def test_an_interrupted_generation_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 7
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / "set", train_images=5, val_images=2, size=SIZE, seed=3, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert digests(generate(tmp_path / "set")) == digests(generate(tmp_path / "unbroken"))


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    generate_shapes(
        tmp_path / "set",
        train_images=2,
        val_images=1,
        size=SIZE,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_all_bad_arguments_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        generate_shapes(tmp_path / "set", train_images=0, val_images=-1, size=(20, 256), seed=-1)
    message = str(caught.value)
    for part in ("train_images is 0", "val_images is -1", "size height is 20", "seed is -1", "4 errors"):
        assert part in message
    with pytest.raises(ConfigError, match=r"size is 100000 x 100000; an image may have at most 89,478,485 pixels"):
        generate_shapes(tmp_path / "set", train_images=1, val_images=1, size=(100_000, 100_000), seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot write the shapes"):
        generate(tmp_path / "file" / "set")


@pytest.mark.slow
def test_a_mix_makes_objects_rare_and_changes_the_usual_scenes_by_nothing(tmp_path: Path) -> None:
    rare = SceneMix(objects=(1, 1), object_sides=(10.0, 32.0), empty_share=0.5)
    scenes = [draw_scene(5, 0, index, SIZE, rare) for index in range(80)]
    counts = Counter(len(scene.classes) for scene in scenes)
    assert set(counts) == {0, 1}
    assert 25 < counts[0] < 55
    found = [a for scene in scenes for a in scene_annotations(scene, 1, 1)]
    assert max(max(a["bbox"][2:]) for a in found) <= 34
    usual = draw_scene(5, 0, 0, SIZE)
    assert np.array_equal(usual.image, draw_scene(5, 0, 0, SIZE, SceneMix()).image)
    for name, mix in (("usual", SceneMix()), ("rare", rare)):
        generate_shapes(tmp_path / name, train_images=1, val_images=1, size=SIZE, mix=mix)
    manifests = [json.loads((tmp_path / name / shapes.MANIFEST).read_text("utf-8")) for name in ("usual", "rare")]
    added = {"objects": [1, 1], "object_sizes": [10.0, 32.0], "empty": 0.5}
    assert manifests[1] == manifests[0] | added
    with pytest.raises(DataError, match="other parameters"):
        generate_shapes(tmp_path / "usual", train_images=1, val_images=1, size=SIZE, mix=rare)


def test_a_mix_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    mix = SceneMix(objects=(3, 2), object_sides=(10.0, 90.0), empty_share=1.0)
    with pytest.raises(ConfigError) as caught:
        generate_shapes(tmp_path / "set", train_images=1, val_images=1, size=(96, 96), mix=mix)
    for part in ("objects is [3, 2]", "object_sizes is [10, 90]", "between 4 and 72", "empty is 1", "3 errors"):
        assert part in str(caught.value)
