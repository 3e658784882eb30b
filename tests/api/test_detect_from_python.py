"""`retinanet.load`: images of any origin, with the boxes that `retinanet predict` finds."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import retinanet
from retinanet.commands.predict import main as predict
from retinanet.evaluation.saved import load_detector


@pytest.fixture(scope="module")
def photos(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images: JPEG and PNG, two shapes, one of them with an EXIF rotation."""
    folder = tmp_path_factory.mktemp("photos")
    files = sorted((shapes / "val").iterdir())
    shutil.copy(files[0], folder / "a.jpg")
    Image.open(files[1]).resize((96, 64)).save(folder / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(files[2]).resize((90, 50)).save(folder / "c.jpg", exif=exif)
    Image.open(files[3]).convert("L").save(folder / "d.png")
    return folder


@pytest.fixture(scope="module")
def detector(trained: Path) -> retinanet.ObjectDetector:
    return retinanet.load(trained / "checkpoints" / "best.pt")


@pytest.fixture(scope="module")
def predicted(trained: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict]]:
    """predicted(NAME) is what the command line finds in that image, or in the folder for the empty name."""

    def run(name: str) -> list[dict]:
        output = tmp_path_factory.mktemp("out")
        predict([str(trained / "checkpoints" / "best.pt"), str(photos / name), "--output", str(output)], "predict")
        rows = json.loads((output / "detections.json").read_text(encoding="utf-8"))
        return [{key: row[key] for key in ("image_id", "category_id", "bbox", "score")} for row in rows]

    return run


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.jpg", "d.png"])
def test_every_form_of_an_image_gives_the_boxes_of_predict(
    detector: retinanet.ObjectDetector, photos: Path, predicted: Callable[[str], list[dict]], name: str
) -> None:
    path = photos / name
    upright = {"c.jpg": Image.Transpose.ROTATE_270}.get(name)
    picture = Image.open(path)
    array = np.asarray((picture.transpose(upright) if upright is not None else picture).convert("RGB"))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    wanted = predicted(name)
    forms = [str(path), path, Image.open(path), array, tensor, np.asfortranarray(array), array[..., ::-1][..., ::-1]]
    for image in forms:
        found = detector(image)
        assert found.to_coco() == wanted
        assert found.size == array.shape[:2]
        x, y, w, h = np.array([row["bbox"] for row in wanted]).T
        np.testing.assert_allclose(found.boxes, np.stack([x, y, x + w, y + h], axis=1), atol=1e-3)
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert [found.names[i] for i in range(len(found))] == [detector.names[label] for label in found.labels]
    assert len(wanted) == 20
    assert not np.array_equal(found.boxes, detector(array[:, ::-1]).boxes), "another image has other boxes"


def test_a_list_and_a_folder_give_the_boxes_of_predict(
    detector: retinanet.ObjectDetector, photos: Path, predicted: Callable[[str], list[dict]]
) -> None:
    wanted = predicted("")
    files = sorted(photos.iterdir())
    mixed = [str(files[0]), Image.open(files[1]), files[2], np.asarray(Image.open(files[3]))]
    for images in (str(photos), photos, files, tuple(mixed), str(photos / "*.*")):
        found = detector(images)
        assert [one.image_id for one in found] == [1, 2, 3, 4]
        assert [row for one in found for row in one.to_coco()] == wanted
    assert detector([]) == []
    array = np.asarray(Image.open(files[0]))
    assert [len(one) for one in detector(np.stack([array, array]))] == [20, 20]


def test_a_found_object_is_drawn_and_converted(
    detector: retinanet.ObjectDetector, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = detector(photos / "b.png")
    assert found.size == (64, 96)
    half = found.above(float(found.scores[9]))
    assert (len(found), len(half)) == (20, 10)
    assert half.scores.min() >= found.scores[10]
    assert found.to_coco(7)[0] == {**half.to_coco()[0], "image_id": 7}
    drawn = [np.asarray(found.plot(score)) for score in (0.0, None, 1.0)]
    assert not np.array_equal(drawn[0], drawn[2])
    assert np.array_equal(drawn[1], drawn[2]), "two steps of training reach no score of 0.3"
    shown = Image.open(io.BytesIO(found._repr_png_()))
    assert shown.format == "PNG"
    assert shown.size == (drawn[1].shape[1], drawn[1].shape[0])
    assert "nothing (score 0.3 or more), 20 detections in all" in repr(found)
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=dict))
    made = dict(found.to_supervision())  # type: ignore[call-overload]
    assert made["xyxy"].shape == (20, 4)
    assert made["class_id"].tolist() == found.labels.tolist()
    assert made["data"]["class_name"].tolist() == found.names.tolist()
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(retinanet.ResourceError, match="pip install supervision"):
        found.to_supervision()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 3), dtype=np.float32), "image 1: the array has type float32, not uint8; multiply"),
        (np.zeros((4, 5, 3), dtype=np.uint16), "type uint16, not uint8; scale its values"),
        (np.zeros((3, 40, 50), dtype=np.uint8), r"channels first; give \(height, width, 3\) with image.transpose"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "no pixels"),
        (np.zeros((5,), dtype=np.uint8), r"shape \(5,\); give \(height, width, 3\)"),
        (torch.zeros(40, 50, 3, dtype=torch.uint8), r"channels last; give \(3, height, width\)"),
        (torch.zeros(3, 40, 50), "type float32, not uint8; multiply"),
        ({"image": 1}, "an object of type dict is not an image"),
        ("https://example.org/a.jpg", "is an address; download the image"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg: is an address; download the image"),
        ("data:image/png;base64,iVBORw0", "is an address; download the image and give its path or its bytes"),
        ("", "the path of the image is empty"),
        (b"hello", "image 1: not an image"),
        (io.StringIO("hello"), "open it with mode 'rb'"),
        (np.full((4, 5, 3), 200.0), "type float64, not uint8; its values reach 200: round them"),
        (np.full((4, 5, 3), -1.5), "from -1.5 to -1.5, as after a normalisation"),
        (torch.full((3, 4, 5), 70), "type int64, not uint8; its values reach 70: round them"),
        ("none.jpg", "none.jpg: no such file, folder or pattern"),
        (["none.jpg", "none.png"], r"images that cannot be read \(2 errors\)"),
        ([Path()], "is a folder; pass it alone"),
    ],
)
def test_what_is_no_image_is_refused_with_the_remedy(
    detector: retinanet.ObjectDetector, image: object, message: str
) -> None:
    with pytest.raises(retinanet.DataError, match=message):
        detector(image)  # type: ignore[call-overload]


def test_contents_of_files_and_other_forms_give_the_same_boxes(
    detector: retinanet.ObjectDetector, photos: Path, predicted: Callable[[str], list[dict]]
) -> None:
    wanted = predicted("c.jpg")
    content = (photos / "c.jpg").read_bytes()
    with (photos / "c.jpg").open("rb") as file:
        for image in (content, bytearray(content), memoryview(content), io.BytesIO(content), file):
            found = detector(image)
            assert found.to_coco() == wanted
            assert found.plot().size[0] >= 50, "the picture can be drawn after the file was read"
    assert detector((photos / "c.jpg").absolute().as_uri()).to_coco() == wanted
    found = detector(path for path in sorted(photos.iterdir()))
    assert [row for one in found for row in one.to_coco()] == predicted("")
    array = np.asarray(Image.open(photos / "a.jpg").convert("RGBA"))
    rgba = torch.from_numpy(array.copy()).permute(2, 0, 1)
    assert detector(rgba).to_coco() == predicted("a.jpg")
    assert detector(rgba[0]).to_coco() == detector(array[..., 0]).to_coco()


def test_pixels_of_another_range_are_noted(
    detector: retinanet.ObjectDetector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector(np.eye(40, dtype=np.uint8))
    assert "image 1: no pixel is above 1 of 255" in caplog.text
    thermal = Image.fromarray((np.arange(1600).reshape(40, 40) // 2 + 600).astype(np.uint16))
    thermal.save(tmp_path / "thermal.png")
    for image in (thermal, tmp_path / "thermal.png"):
        caplog.clear()
        detector(image)
        assert "reach 1,399 of 65,535" in caplog.text
        assert "data.depth_range=[600, 1399]" in caplog.text
    caplog.clear()
    detector(np.zeros((40, 40), np.uint8))
    assert not caplog.text


def test_pillow_images_of_every_mode_are_read(detector: retinanet.ObjectDetector, photos: Path, tmp_path: Path) -> None:
    picture = Image.open(photos / "a.jpg")
    wanted = detector(picture).to_coco()
    assert detector(picture.convert("RGBA")).to_coco() == wanted
    assert detector(np.asarray(picture.convert("RGBA"))).to_coco() == wanted
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert detector(deep).to_coco() == detector(grey).to_coco() == detector(np.asarray(grey)).to_coco()
    (tmp_path / "half.jpg").write_bytes((photos / "a.jpg").read_bytes()[:-200])
    with (
        Image.open(tmp_path / "half.jpg") as half,
        pytest.raises(retinanet.DataError, match="image 1: the image cannot be decoded"),
    ):
        detector(half)


def test_all_kinds_of_files_and_a_run_are_loaded(
    detector: retinanet.ObjectDetector, trained: Path, photos: Path, tmp_path: Path
) -> None:
    from retinanet.run.checkpoint import load_checkpoint
    from retinanet.run.published import write_inference_checkpoint

    best = trained / "checkpoints" / "best.pt"
    published = tmp_path / "best.safetensors"
    write_inference_checkpoint(published, load_checkpoint(best))
    wanted = detector(photos / "a.jpg").to_coco()
    for source in (str(best), trained, published):
        assert retinanet.load(source, device="cpu")(photos / "a.jpg").to_coco() == wanted
    few = retinanet.load(best, overrides={"eval": {"detections": 3}})(photos / "a.jpg")
    assert few.to_coco() == wanted[:3]
    assert load_detector(str(best)).categories == load_detector(best, []).categories


def test_loading_leaves_torch_as_it_is(trained: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    try:
        torch.use_deterministic_algorithms(False)
        retinanet.load(trained)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(before, torch.get_rng_state())
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def test_what_cannot_be_loaded_is_refused_with_the_remedy(tmp_path: Path, trained: Path) -> None:
    for source, message in (("none", "or one of the names torchvision_v1_coco"), (tmp_path, "holds no run")):
        with pytest.raises(retinanet.CheckpointError, match=message):
            retinanet.load(source)
    with pytest.raises(retinanet.CheckpointError, match="no such checkpoint"):
        retinanet.load(tmp_path / "none.pt")
    with pytest.raises(retinanet.ConfigError, match=r"eval\.score_threshhold"):
        retinanet.load(trained, overrides={"eval.score_threshhold": 0.3})
    with pytest.raises(retinanet.ConfigError, match="device"):
        retinanet.load(trained, device="gpu")


def test_detectors_under_other_names_are_found_or_named(trained: Path, tmp_path: Path) -> None:
    assert retinanet.load(trained / "checkpoints", overrides=None).names == retinanet.load(trained).names
    shutil.copytree(trained / "checkpoints", tmp_path / "mine/checkpoints")
    for source, message in (
        (tmp_path, f"there is {tmp_path / 'mine/checkpoints/best.pt'}"),
        ("Torchvision_V2_COCO", r"did you mean torchvision_v2_coco\?"),
        ("https://example.org/best.pt", "is an address; download the file"),
        ({"model": 1}, "loaded from a file, not from a dict"),
        (None, "loaded from a file, not from a NoneType"),
    ):
        with pytest.raises(retinanet.CheckpointError, match=message):
            retinanet.load(source)  # type: ignore[arg-type]


def test_several_threads_detect_at_the_same_time(detector: retinanet.ObjectDetector, photos: Path) -> None:
    wanted = detector(photos / "b.png").to_coco()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: detector(photos / "b.png").to_coco(), range(8)))
    assert found == [wanted] * 8
