"""One generated scene: the positions of its shapes, their occlusion, and the resulting boxes.

A scene is a pure function of (seed, split, index, size); it does not depend on how many are made, or in which order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from retinanet.prepare.shapes_draw import (
    CLASS_NAMES,
    RIM_MIN_SIDE,
    SOLID_DISTRACTORS,
    STROKE_DISTRACTORS,
    Array,
    contrasting_colour,
    draw_background,
    draw_coverage,
    fill_patch,
    place_outline,
    unit_outline,
)

OBJECT_SIDES = (8.0, 200.0)
MOST_OF_IMAGE = 0.75
EMPTY_SHARE = 0.03
OBJECTS = (2, 11)
DISTRACTORS = (1, 6)
COMMONEST_SIDE = 48.0
TYPICAL_HUE = 0.9
"""Share of objects in their class's range of hues; the others, and half of the distractors, have any hue."""
TYPICAL_HUE_DISTRACTOR = 0.5
"""Share of distractors in the hues of some class, so that colour alone is not enough to find objects."""
TILT = np.pi / 7
"""Maximum angle of objects from upright; distractors have any angle."""
LEAST_INSIDE = 0.65
"""Share of an object that must be within the border: a square cut in half at its corners would be a triangle."""
LEAST_INSIDE_DISTRACTOR = 0.75
"""A distractor cut further may lose what distinguishes it from a class: an L becomes a square."""
LEAST_VISIBLE, MOST_OCCLUDED = 0.5, 0.4
WHOLLY_INSIDE = 0.85


class SceneMix(NamedTuple):
    """What the scenes of a data set hold."""

    objects: tuple[int, int] = OBJECTS
    """Fewest and most objects that are placed in a scene that is not empty, each as often; one that finds no room is
    left out."""
    object_sides: tuple[float, float] | None = None
    """Least and most pixels of an object's longer side, uniform in the logarithm; None: OBJECT_SIDES, most often
    COMMONEST_SIDE, at most MOST_OF_IMAGE of the image."""
    empty_share: float = EMPTY_SHARE
    """Share of scenes without objects (0..1), on average."""


class Scene(NamedTuple):
    """One picture and the objects in it."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    owners: NDArray[np.int16]
    """(H, W): 0 where no object is visible, i + 1 where object i is."""
    classes: list[int]
    """Class index of each object."""


DEFAULT_MIX = SceneMix()


class _Item(NamedTuple):
    kind: str
    class_index: int | None
    side: float
    hue: float | None
    """Hue of its main colour, 0..1; None: any."""


class _Canvas:
    """A picture being drawn, with the owner of each pixel and the visible part of each object."""

    def __init__(self, ground: Array) -> None:
        self.picture = ground
        self.owners: NDArray[np.int16] = np.zeros(ground.shape[:2], np.int16)
        self.classes: list[int] = []
        self._visible = np.zeros(1, np.int64)
        """(1 + objects,) visible pixels; entry 0 stands for everything that is not an object."""
        self._least_visible = np.zeros(1, np.float64)
        """(1 + objects,) minimum of `_visible`."""

    def _crop(self, top: int, left: int, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The intersection of a patch at (top, left) with the picture, in the picture's and in the patch's pixels."""
        height, width = self.owners.shape
        there = np.s_[max(top, 0) : top + shape[0], max(left, 0) : left + shape[1]]
        return there, np.s_[max(-top, 0) : height - top, max(-left, 0) : width - left]

    def _find_place(
        self, solid: NDArray[np.bool_], least_inside: float, rng: np.random.Generator
    ) -> tuple[int, int] | None:
        """(top, left) that hides no object too much and keeps a share of least_inside, or None after ten attempts."""
        height, width = self.owners.shape
        h, w = solid.shape
        full = int(solid.sum())
        for _ in range(10):
            if rng.random() < WHOLLY_INSIDE:
                top, left = int(rng.integers(0, max(height - h, 0) + 1)), int(rng.integers(0, max(width - w, 0) + 1))
            else:
                top, left = int(rng.integers(0, height)) - h // 2, int(rng.integers(0, width)) - w // 2
            there, crop = self._crop(top, left, (h, w))
            patch = solid[crop]
            if patch.sum() < max(least_inside * full, 1):
                continue
            hidden = np.bincount(self.owners[there][patch], minlength=len(self._visible))
            hidden[0] = 0
            if np.all(self._visible - hidden >= self._least_visible):
                return top, left
        return None

    def add(self, item: _Item, rng: np.random.Generator) -> None:
        """Draw `item` at a random place, or not at all if it would hide too much."""
        stretch, angle = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4)))), rng.uniform(-np.pi, np.pi)
        if item.class_index is not None:
            angle *= TILT / np.pi
        is_stroke = item.kind in STROKE_DISTRACTORS
        stroke_width = float(np.clip(item.side * rng.uniform(0.03, 0.12), 1.5, 9)) if is_stroke else 0.0
        outline = place_outline(unit_outline(item.kind, rng), stretch, angle, item.side, stroke_width)
        style = _draw_style(item.side, is_stroke, rng)
        rim = max(item.side * rng.uniform(0.04, 0.09), 1.5) if style == "rimmed" else 0.0
        cover, edge = draw_coverage(outline, (rng.random(), rng.random()), rim)
        solid = cover >= 128
        least_inside = LEAST_INSIDE if item.class_index is not None else LEAST_INSIDE_DISTRACTOR
        place = self._find_place(solid, least_inside, rng)
        if place is None:
            return
        there, crop = self._crop(*place, cover.shape)
        self._paint(cover[crop], edge[crop], there, style, item.hue, rng)
        patch = solid[crop]
        self._visible -= np.bincount(self.owners[there][patch], minlength=len(self._visible))
        owner = 0
        if item.class_index is not None:
            full, inside = int(solid.sum()), int(patch.sum())
            self.classes.append(item.class_index)
            self._visible = np.append(self._visible, inside)
            self._least_visible = np.append(
                self._least_visible, max(LEAST_VISIBLE * full, inside - MOST_OCCLUDED * full)
            )
            owner = len(self.classes)
        self._visible[0] = 0
        self.owners[there][patch] = owner

    def _paint(
        self,
        cover: NDArray[np.uint8],
        edge: NDArray[np.uint8],
        there: tuple[slice, slice],
        style: str,
        hue: float | None,
        rng: np.random.Generator,
    ) -> None:
        """Colour the patch `there` by its coverage, in colours that contrast with what it hides."""
        below = self.picture[there]
        alpha = cover.astype(np.float32)[..., None] / np.float32(255)
        hidden = below[cover >= 128]
        local = hidden[:: max(len(hidden) // 48, 1)]
        first = contrasting_colour(rng, local, 75.0, hue)
        away = np.concatenate([local, np.tile(first, (len(local), 1))]) if style == "rimmed" else local
        second = contrasting_colour(rng, away, 70.0)
        colours = fill_patch(style, (cover.shape[0], cover.shape[1]), first, second, rng)
        if style == "rimmed":
            colours = colours + (second - colours) * (edge.astype(np.float32)[..., None] / np.float32(255))
        below += (colours - below) * alpha


def _draw_style(side: float, is_stroke: bool, rng: np.random.Generator) -> str:
    if is_stroke or side < RIM_MIN_SIDE:
        return "gradient" if rng.random() < 0.2 else "flat"
    return str(rng.choice(["flat", "gradient", "striped", "dotted", "rimmed"], p=[0.4, 0.3, 0.1, 0.08, 0.12]))


def _draw_items(size: tuple[int, int], mix: SceneMix, rng: np.random.Generator) -> list[_Item]:
    """Objects and distractors of a scene, in drawing order."""
    most = min(OBJECT_SIDES[1], MOST_OF_IMAGE * min(size))
    items: list[_Item] = []
    objects = 0 if rng.random() < mix.empty_share else int(rng.integers(mix.objects[0], mix.objects[1] + 1))
    for _ in range(objects):
        class_index = int(rng.integers(len(CLASS_NAMES)))
        if mix.object_sides is None:
            side = float(np.exp(rng.triangular(np.log(OBJECT_SIDES[0]), np.log(COMMONEST_SIDE), np.log(most))))
        else:
            side = float(np.exp(rng.uniform(*np.log(mix.object_sides))))
        hue = class_index / len(CLASS_NAMES) if rng.random() < TYPICAL_HUE else None
        items.append(_Item(kind=CLASS_NAMES[class_index], class_index=class_index, side=side, hue=hue))
    for _ in range(int(rng.integers(DISTRACTORS[0], DISTRACTORS[1] + 1))):
        # Solid distractors stay large enough for their form to be recognised: a hexagon of 10 pixels is a disc.
        if rng.random() < 0.55:
            kind, least = str(rng.choice(SOLID_DISTRACTORS)), 24.0
        else:
            kind, least = str(rng.choice(STROKE_DISTRACTORS)), 14.0
        hue = int(rng.integers(len(CLASS_NAMES))) / len(CLASS_NAMES) if rng.random() < TYPICAL_HUE_DISTRACTOR else None
        side = float(np.exp(rng.uniform(np.log(least), np.log(most))))
        items.append(_Item(kind=kind, class_index=None, side=side, hue=hue))
    return [items[i] for i in rng.permutation(len(items))]


def draw_scene(seed: int, split: int, index: int, size: tuple[int, int], mix: SceneMix = DEFAULT_MIX) -> Scene:
    """The scene of `index` (0, 1, ...) in split 0 (train), 1 (val) or 2 (test); size is (height, width)."""
    rng = np.random.default_rng([seed, split, index])
    canvas = _Canvas(draw_background(size, rng))
    for item in _draw_items(size, mix, rng):
        canvas.add(item, rng)
    picture = canvas.picture
    contrast, brightness = rng.uniform(0.8, 1.15), rng.uniform(-18, 18)
    picture *= np.float32(contrast)
    picture += np.float32(128 * (1 - contrast) + brightness)
    if rng.random() < 0.25:
        picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(2, 8))
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.25:
        row = np.array([1.0, rng.uniform(2.5, 12), 1.0])
        image = image.filter(ImageFilter.Kernel((3, 3), np.outer(row, row).ravel().tolist(), float(row.sum() ** 2)))
    return Scene(np.asarray(image), canvas.owners, canvas.classes)


def scene_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, object]]:
    """COCO annotations: boxes [x, y, w, h] tight around the visible pixels, area their number; ids from first_id."""
    annotations: list[dict[str, object]] = []
    for i, class_index in enumerate(scene.classes):
        mask = scene.owners == i + 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": class_index + 1,
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
    return annotations
