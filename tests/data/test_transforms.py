"""Resizing, canvases, augmentation and normalisation; pixels and boxes must agree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from retinanet.data.coco import ImageRecord
from retinanet.data.crop import LEAST_VISIBLE, crop_boxes, mirror
from retinanet.data.transforms import (
    CANVAS_MULTIPLE,
    NO_AUGMENT,
    Augment,
    PixelRule,
    Resize,
    ResizeRule,
    collate,
    draw_changes,
    make_sample,
    normalise,
    packed_copies,
    tight_canvas,
)
from retinanet.structures import Sample

NO_BOXES = np.zeros((0, 4), np.float32)
ALWAYS_FLIP = NO_AUGMENT._replace(flip=1.0)
ALWAYS_FLIP_VERTICALLY = NO_AUGMENT._replace(vertical_flip=1.0)


def rectangle_image(height: int, width: int, box: tuple[int, int, int, int]) -> Tensor:
    """Black with one white rectangle, (3, height, width) uint8."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    return image


def record_of(image: Tensor, boxes: list[tuple[int, ...]], crowd: list[tuple[int, ...]] | None = None) -> ImageRecord:
    arrays = [np.array(b, np.float32).reshape(-1, 4) for b in (boxes, crowd or [])]
    return ImageRecord(
        id=7,
        path=Path("x.png"),
        height=image.shape[1],
        width=image.shape[2],
        boxes_G4=arrays[0],
        classes_G=np.arange(len(boxes)),
        crowd_C4=arrays[1],
    )


def bright_box(image: Tensor) -> list[int]:
    """Bounds (x1, y1, x2, y2) of what is brighter than half."""
    rows = (image[0] > 127).any(dim=1).nonzero().flatten()
    columns = (image[0] > 127).any(dim=0).nonzero().flatten()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def sample_of(
    image: Tensor,
    record: ImageRecord,
    fitted: tuple[int, int],
    canvas: tuple[int, int],
    augment: Augment,
    seed: int = 0,
    resize: Resize = "antialias",
) -> Sample:
    return make_sample(image, record, fitted, canvas, augment, draw_changes(np.random.default_rng(seed)), resize)


def rule(shorter: int | tuple[int, ...], longer: int, canvas: tuple[int, int] | None = None) -> ResizeRule:
    sides = (shorter,) if isinstance(shorter, int) else shorter
    return ResizeRule(shorter_side=sides, longer_side=longer, canvas=canvas, resize="antialias", canvases="groups")


SIDES = [1, 2, 31, 33, 97, 300, 333, 427, 480, 499, 500, 512, 640, 1000, 1333, 2048]
SHAPES = [(h, w) for h in SIDES for w in SIDES] + [
    (round(480 * aspect) + extra, 480)[:: 1 if tall else -1]
    for aspect in (1.0, 1.02, 1.34, 1.5, 1.51, 1.78)
    for extra in (-2, -1, 0, 1, 2)
    for tall in (True, False)
]


@pytest.mark.parametrize(
    ("shorter_sides", "longer"),
    [
        ((600,), 1000),
        ((800,), 1333),
        ((640, 672, 704, 736, 768, 800), 1333),
        ((96,), 100),
        ((200,), 100),
        ((31,), 4000),
    ],
)
def test_a_buckets_canvas_holds_every_image_of_the_bucket(shorter_sides: tuple[int, ...], longer: int) -> None:
    resize_rule = rule(shorter_sides, longer)
    canvases = set()
    for height, width in SHAPES:
        bucket = resize_rule.aspect_bucket(height, width)
        for shorter in shorter_sides:
            fitted, canvas = resize_rule.fitted(height, width, shorter), resize_rule.bucket_canvas(bucket, shorter)
            assert fitted[0] <= canvas[0], (height, width, shorter)
            assert fitted[1] <= canvas[1], (height, width, shorter)
            assert canvas[0] % CANVAS_MULTIPLE == canvas[1] % CANVAS_MULTIPLE == 0
            canvases.add((shorter, canvas))
    assert len(canvases) <= 7 * len(shorter_sides), "few canvases, so that shapes repeat"


def test_common_photographs_waste_little_of_their_canvas() -> None:
    resize_rule = rule(800, 1333)
    for height, width in ((480, 640), (640, 480), (427, 640), (640, 427), (500, 500)):
        fitted = resize_rule.fitted(height, width, 800)
        canvas = resize_rule.bucket_canvas(resize_rule.aspect_bucket(height, width), 800)
        assert fitted[0] * fitted[1] > 0.9 * canvas[0] * canvas[1], (height, width)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (600, 800)),
        (640, 480, (800, 600)),
        (500, 500, (600, 600)),
        (300, 900, (333, 1000)),
        (600, 1000, (600, 1000)),
        (1, 5000, (1, 1000)),
    ],
)
def test_the_shorter_side_is_reached_unless_the_longer_would_exceed(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    assert rule(600, 1000).fitted(height, width, 600) == expected


def test_a_fixed_canvas_puts_every_shape_in_one_bucket() -> None:
    resize_rule = rule(600, 1000, (250, 320))
    assert {resize_rule.aspect_bucket(h, w) for h, w in SHAPES} == {0}
    assert resize_rule.bucket_canvas(0, 600) == (256, 320)
    for height, width in SHAPES:
        fitted = resize_rule.fitted(height, width, 600)
        assert fitted[0] <= 250
        assert fitted[1] <= 320
        assert fitted[0] == 250 or fitted[1] == 320


def test_without_augmentation_and_resizing_nothing_changes() -> None:
    image = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8)
    record = record_of(image, [(3, 4, 20, 30), (0, 0, 56, 40)], crowd=[(10, 10, 50, 39)])
    sample = sample_of(image, record, (40, 56), (64, 64), NO_AUGMENT)
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.targets.boxes_G4, torch.from_numpy(record.boxes_G4))
    assert torch.equal(sample.targets.crowd_C4, torch.from_numpy(record.crowd_C4))
    assert sample.targets.classes_G.tolist() == [0, 1]
    assert (sample.image_id, sample.original_size) == (7, (40, 56))


@pytest.mark.parametrize("fitted", [(40, 80), (160, 120), (31, 97)])
@pytest.mark.parametrize("augment", [NO_AUGMENT, ALWAYS_FLIP, ALWAYS_FLIP_VERTICALLY])
def test_the_box_still_bounds_its_rectangle_after_resize_and_flips(fitted: tuple[int, int], augment: Augment) -> None:
    image = rectangle_image(80, 80, box=(8, 16, 40, 72))
    sample = sample_of(image, record_of(image, [(8, 16, 40, 72)]), fitted, (160, 160), augment)
    assert sample.image.shape == (3, *fitted)
    assert sample.image.dtype == torch.uint8
    assert sample.targets.boxes_G4[0].tolist() == pytest.approx(bright_box(sample.image), abs=1.01)


def test_an_exact_flip_moves_the_box_exactly() -> None:
    image = rectangle_image(50, 60, box=(5, 10, 25, 45))
    record = record_of(image, [(5, 10, 25, 45)], crowd=[(5, 10, 25, 45)])
    for augment, expected in ((ALWAYS_FLIP, [35, 10, 55, 45]), (ALWAYS_FLIP_VERTICALLY, [5, 5, 25, 40])):
        sample = sample_of(image, record, (50, 60), (64, 64), augment)
        assert bright_box(sample.image) == expected
        assert sample.targets.boxes_G4.tolist() == [expected]
        assert sample.targets.crowd_C4.tolist() == [expected]
    assert mirror(mirror(record.boxes_G4, 60, 0), 60, 0).tolist() == record.boxes_G4.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_zoom_and_crop_keep_the_box_on_its_rectangle(seed: int) -> None:
    image = rectangle_image(96, 64, box=(20, 30, 44, 66))
    record = record_of(image, [(20, 30, 44, 66)])
    sample = sample_of(
        image,
        record,
        (96, 64),
        (96, 64),
        Augment(scale_jitter=(0.5, 2.0), color_jitter=0.0, flip=0.5, vertical_flip=0.5),
        seed,
    )
    assert sample.image.shape[1] <= 96
    assert sample.image.shape[2] <= 64
    box = torch.cat([sample.targets.boxes_G4, sample.targets.crowd_C4])[0].tolist()
    assert box == pytest.approx(bright_box(sample.image), abs=1.01)


def test_zoom_spans_its_range_evenly_in_the_logarithm() -> None:
    image = torch.zeros((3, 100, 100), dtype=torch.uint8)
    augment = NO_AUGMENT._replace(scale_jitter=(0.25, 1.0))
    sides = [
        sample_of(image, record_of(image, []), (100, 100), (128, 128), augment, seed).image.shape[1]
        for seed in range(400)
    ]
    assert 25 <= min(sides) < 28
    assert 93 < max(sides) <= 100
    assert np.median(sides) == pytest.approx(50, abs=5)


def test_flip_and_zoom_do_not_change_which_other_choices_are_made() -> None:
    """The number of draws is fixed, so switching one augmentation on leaves the others as they were."""
    image = torch.arange(3 * 64 * 64).reshape(3, 64, 64).to(torch.uint8)
    record = record_of(image, [])
    for seed in range(5):
        plain = sample_of(image, record, (64, 64), (64, 64), NO_AUGMENT._replace(color_jitter=0.3), seed)
        flipped = sample_of(image, record, (64, 64), (64, 64), NO_AUGMENT._replace(color_jitter=0.3, flip=1.0), seed)
        difference = (plain.image.flip(2).int() - flipped.image.int()).abs()
        assert difference.max() <= 1


def test_a_fragment_of_an_object_becomes_a_region_to_ignore() -> None:
    boxes = np.array([[0, 0, 20, 20], [30, 30, 50, 50], [90, 90, 110, 110], [45, 10, 65, 20]], np.float32)
    crowd = np.array([[0, 0, 100, 10], [80, 80, 99, 99]], np.float32)
    kept, classes, ignored = crop_boxes(boxes, np.array([5, 6, 7, 8]), crowd, (5, 15, 40, 40))
    # Window x 15..55, y 5..45: the first keeps 5x15 of 400, the second all but a corner, the last half.
    assert classes.tolist() == [6, 8]
    assert kept.tolist() == [[15, 25, 35, 40], [30, 5, 40, 15]]
    assert ignored.tolist() == [[0, 0, 40, 5], [0, 0, 5, 15]]


def test_the_share_that_makes_a_fragment_is_as_documented() -> None:
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    wide = round(10 * LEAST_VISIBLE)
    assert len(crop_boxes(boxes, np.array([0]), NO_BOXES, (0, 10 - wide, 10, 50))[0]) == 1
    assert len(crop_boxes(boxes, np.array([0]), NO_BOXES, (0, 11 - wide, 10, 50))[0]) == 0


def test_colour_jitter_changes_pixels_within_uint8_and_nothing_else() -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    record = record_of(image, [(1, 2, 3, 4)])
    seen = [sample_of(image, record, (32, 32), (32, 32), NO_AUGMENT._replace(color_jitter=0.9), s) for s in range(6)]
    assert all(sample.image.dtype == torch.uint8 for sample in seen)
    assert all(not torch.equal(sample.image, image) for sample in seen)
    assert all(sample.targets.boxes_G4.tolist() == [[1, 2, 3, 4]] for sample in seen)
    assert not torch.equal(seen[0].image, seen[1].image)


def test_equal_generators_give_equal_samples() -> None:
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    record = record_of(image, [(1, 2, 30, 40)])
    augment = Augment(scale_jitter=(0.5, 2.0), color_jitter=0.4, flip=0.5, vertical_flip=0.5)
    first, again, other = (sample_of(image, record, (48, 48), (64, 64), augment, seed) for seed in (4, 4, 5))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.targets.boxes_G4, again.targets.boxes_G4)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)


def test_samples_are_padded_at_the_right_and_bottom() -> None:
    images = [torch.full((3, h, w), 200, dtype=torch.uint8) for h, w in ((20, 32), (32, 10))]
    samples = [sample_of(i, record_of(i, [(0, 0, 5, 5)]), tuple(i.shape[1:]), (32, 32), NO_AUGMENT) for i in images]
    batch = collate(samples, (32, 32))
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.sizes_B2.tolist() == [[20, 32], [32, 10]]
    assert batch.original_sizes_B2.tolist() == [[20, 32], [32, 10]]
    assert batch.image_ids_B.tolist() == [7, 7]
    assert (batch.images[0, :, :20] == 200).all()
    assert (batch.images[0, :, 20:] == 0).all()
    assert (batch.images[1, :, :, 10:] == 0).all()


IMAGENET = PixelRule("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def test_tensors_packed_for_one_copy_keep_values_shapes_and_types() -> None:
    whole = [torch.tensor([[3, 4], [-5, 6]]), torch.zeros(0, dtype=torch.int64), torch.tensor([2**40])]
    given = [*whole, torch.tensor([[0.5, -1.5, 2.0, 3.0]]), torch.zeros(0, 4), torch.rand(3, 4).T[:, 1:]]
    copies = packed_copies(given, torch.device("cpu"))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(copies, given, strict=True))
    assert len({copied.untyped_storage().data_ptr() for copied in copies}) == 1


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("given_last", [True, False])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_normalisation_is_in_closed_form_and_exactly_zero_in_the_padding(
    channels_last: bool, given_last: bool, kind: torch.dtype
) -> None:
    images = (torch.randint(0, 256, (2, 3, 8, 12)) + (0.25 if kind.is_floating_point else 0)).to(kind)
    images = images.contiguous(memory_format=torch.channels_last if given_last else torch.contiguous_format)
    before = images.clone()
    normal = normalise(images, torch.tensor([[8, 12], [5, 7]]), IMAGENET, channels_last)
    assert normal.dtype == torch.float32
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert normal.is_contiguous(memory_format=layout)
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        expected = (images[0, channel].double() / 255 - mean) / std
        torch.testing.assert_close(normal[0, channel].double(), expected, atol=3e-7, rtol=0)
    assert torch.equal(images, before)
    assert (normal[1, :, 5:] == 0).all()
    assert (normal[1, :, :, 7:] == 0).all()
    alone = normalise(images[1:, :, :5, :7], torch.tensor([[5, 7]]), IMAGENET, False)
    torch.testing.assert_close(normal[1, :, :5, :7], alone[0])


def test_caffes_pixels_are_bgr_in_0_to_255_minus_the_mean() -> None:
    caffe = PixelRule("bgr", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
    images = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    normal = normalise(images, torch.tensor([[4, 3]]), caffe, False)
    for channel, mean in enumerate(caffe.mean):
        expected = images[0, 2 - channel, :, :3].double() - mean
        torch.testing.assert_close(normal[0, channel, :, :3].double(), expected, atol=1e-5, rtol=0)
    assert (normal[..., 3] == 0).all()


EXACT = rule((96, 128), 200)._replace(resize="float_bilinear", canvases="tight")
"""As torchvision's detectors, except for the size."""
EXACT_SHAPES = [(97, 133), (133, 97), (64, 500), (500, 63), (128, 128), (200, 100), (1, 7), (333, 427), (96, 128)]


def exact_sample(image: Tensor, boxes: list[tuple[int, ...]], shorter: int, augment: Augment = NO_AUGMENT) -> Sample:
    height, width = image.shape[1:]
    fitted = EXACT.fitted(height, width, shorter)
    canvas = EXACT.image_canvas(fitted, EXACT.aspect_bucket(height, width), shorter)
    return sample_of(image, record_of(image, boxes), fitted, canvas, augment, resize=EXACT.resize)


def torchvision_transform(shorter: int, training: bool) -> GeneralizedRCNNTransform:
    """Of one shorter side, without normalisation."""
    return GeneralizedRCNNTransform((shorter,), 200, [0.0] * 3, [1.0] * 3).train(training)


@pytest.mark.parametrize("shorter", [96, 128])
def test_exact_resizing_and_batching_are_torchvisions(shorter: int) -> None:
    """Pixels, sizes, boxes and padding of GeneralizedRCNNTransform, on a batch of shapes that differ."""
    torch.manual_seed(0)
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in EXACT_SHAPES]
    boxes = [[(0, 0, 1, 1), (w // 3, h // 4, w, h)] for h, w in EXACT_SHAPES]
    wanted = [{"boxes": torch.tensor(b, dtype=torch.float32)} for b in boxes]
    batched, resized = torchvision_transform(shorter, training=True)([i.float() for i in images], wanted)
    samples = [exact_sample(image, b, shorter) for image, b in zip(images, boxes, strict=True)]
    batch = collate(samples, tight_canvas(samples))
    assert batch.images.dtype == torch.float32
    assert batch.sizes_B2.tolist() == [list(size) for size in batched.image_sizes]
    torch.testing.assert_close(batch.images, batched.tensors, rtol=0, atol=1e-4)
    for targets, expected in zip(batch.targets, resized, strict=True):
        torch.testing.assert_close(targets.boxes_G4, expected["boxes"], rtol=1e-6, atol=0)


def test_exact_sizes_are_torchvisions_on_thousands_of_shapes() -> None:
    rng = np.random.default_rng(0)
    resize_rule = rule(800, 1333)._replace(resize="float_bilinear", canvases="tight")
    shapes = [*SHAPES, *(tuple(s) for s in rng.integers(1, 3000, (3000, 2)).tolist()), (427, 640), (640, 427)]
    rounded = 0
    for height, width in shapes:
        scale = min(800 / min(height, width), 1333 / max(height, width))
        fitted = resize_rule.fitted(height, width, 800)
        assert fitted == (max(1, int(height * scale)), max(1, int(width * scale)))
        rounded += fitted != resize_rule._replace(resize="antialias").fitted(height, width, 800)
    assert rounded > 500, "rounding down and rounding must not be the same thing here"


def test_a_batch_is_padded_no_further_than_its_largest_image_and_one_image_to_its_own() -> None:
    shapes = [(97, 133), (100, 121)]
    samples = [exact_sample(torch.zeros((3, h, w), dtype=torch.uint8), [], 96) for h, w in shapes]
    assert [tuple(s.image.shape[1:]) for s in samples] == [(96, 131), (96, 116)]
    assert tight_canvas(samples) == (96, 160)
    assert tight_canvas(samples[1:]) == (96, 128)
    assert EXACT.image_canvas((96, 116), 0, 96) == (96, 128)
    grouped = EXACT._replace(canvases="groups")
    assert grouped.image_canvas((96, 116), 2, 96) == grouped.bucket_canvas(2, 96)


def test_exact_pixels_are_float_in_0_to_255_through_flips_and_colour() -> None:
    image = rectangle_image(60, 50, box=(5, 10, 25, 45))
    plain = exact_sample(image, [(5, 10, 25, 45)], 96)
    flipped = exact_sample(image, [(5, 10, 25, 45)], 96, ALWAYS_FLIP)
    torch.testing.assert_close(flipped.image, plain.image.flip(2))
    assert flipped.targets.boxes_G4[0].tolist() == pytest.approx(bright_box(flipped.image), abs=1.01)
    coloured = exact_sample(
        torch.randint(0, 256, (3, 60, 50), dtype=torch.uint8), [], 96, NO_AUGMENT._replace(color_jitter=0.9)
    )
    for sample in (plain, flipped, coloured):
        assert sample.image.dtype == torch.float32
        assert sample.image.min() >= 0
        assert 1 < sample.image.max() <= 255.01  # interpolation rounds


def test_float_pixels_do_not_depend_on_threads() -> None:
    """A loader worker has one thread, the training process may have more."""
    image = torch.randint(0, 256, (3, 480, 640), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augment = NO_AUGMENT._replace(color_jitter=0.4)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            rng, record = np.random.default_rng(0), record_of(image, [])
            found.append(
                make_sample(image, record, (601, 801), (608, 832), augment, draw_changes(rng), "float_bilinear").image
            )
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
