"""Drawing for the generated data set: outlines, coverage masks, fills and backgrounds.

Everything is a function of its arguments and the numpy Generator passed in. Outlines are (N, 2) float arrays of
x, y; colours are (3,) float32 RGB in 0..255; pictures are (H, W, 3) float32 RGB; coverage is (h, w) uint8.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float32]
Coverage = NDArray[np.uint8]

CLASS_NAMES = ("disc", "square", "triangle")
SOLID_DISTRACTORS = (
    "half_disc", "quarter_disc", "pentagon", "hexagon", "cross", "ell", "arrow", "parallelogram", "crescent", "blob",
)  # fmt: skip
STROKE_DISTRACTORS = ("line", "polyline", "arc", "scribble")
RIM_MIN_SIDE = 16.0
"""Shapes smaller than this (pixels) have no rim or texture, which would hide their form."""


class Outline(NamedTuple):
    """A form in pixels: filled polygons, then holes cut out of them, then strokes of one width added."""

    fills: list[Array]
    holes: list[Array]
    strokes: list[Array]
    stroke_width: float


def _arc(start: float, stop: float, radius: float = 1.0, points: int = 72) -> Array:
    angles = np.linspace(start, stop, points, dtype=np.float32)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.float32(radius)


def _regular(corners: int) -> Array:
    """Regular polygon with its first corner up."""
    angles = -np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _points(*pairs: tuple[float, float]) -> Array:
    return np.array(pairs, np.float32)


def _blob(rng: np.random.Generator) -> Array:
    """A lobed closed curve, far enough from every ellipse to be distinguished from a disc."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    lobes = int(rng.integers(3, 6))
    radius = 1 + rng.uniform(0.28, 0.4) * np.sin(lobes * angles + rng.uniform(0, 6.28))
    radius += rng.uniform(0.1, 0.2) * np.sin((lobes - 1) * angles + rng.uniform(0, 6.28))
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1).astype(np.float32)


def _walk(rng: np.random.Generator, corners: int, wander: float) -> Array:
    """An open line from left to right that deviates up and down by `wander`."""
    x = np.linspace(-1, 1, corners) + rng.uniform(-0.15, 0.15, corners)
    return np.stack([x, rng.uniform(-wander, wander, corners)], axis=1).astype(np.float32)


def unit_outline(kind: str, rng: np.random.Generator) -> Outline:
    """The form of a class or distractor around the origin, before stretch, rotation and size."""
    fills: list[Array] = []
    holes: list[Array] = []
    strokes: list[Array] = []
    match kind:
        case "disc":
            fills = [_arc(0, 2 * np.pi)]
        case "square":
            fills = [_points((-1, -1), (1, -1), (1, 1), (-1, 1))]
        case "triangle":
            fills = [_regular(3)]
        case "half_disc":
            fills = [_arc(0, np.pi)]
        case "quarter_disc":
            fills = [np.concatenate([_arc(0, np.pi / 2), _points((0, 0))])]
        case "pentagon":
            fills = [_regular(5)]
        case "hexagon":
            fills = [_regular(6)]
        case "cross":
            a = rng.uniform(0.25, 0.4)
            fills = [_points((-1, -a), (1, -a), (1, a), (-1, a)), _points((-a, -1), (a, -1), (a, 1), (-a, 1))]
        case "ell":
            a = rng.uniform(-0.6, -0.25)
            fills = [_points((-1, -1), (a, -1), (a, -a), (1, -a), (1, 1), (-1, 1))]
        case "arrow":
            a = rng.uniform(0.2, 0.35)
            fills = [_points((-1, -a), (0.1, -a), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, a), (-1, a))]
        case "parallelogram":
            a = rng.uniform(0.7, 1.0)
            fills = [_points((-1 + a, -0.7), (1 + a, -0.7), (1 - a, 0.7), (-1 - a, 0.7))]
        case "crescent":
            fills, holes = [_arc(0, 2 * np.pi)], [_arc(0, 2 * np.pi, 0.9) + _points((rng.uniform(0.5, 0.8), 0))]
        case "blob":
            fills = [_blob(rng)]
        case "line":
            strokes = [_points((-1, 0), (1, 0))]
        case "polyline":
            strokes = [_walk(rng, int(rng.integers(3, 6)), 0.8)]
        case "arc":
            strokes = [_arc(0, rng.uniform(1.6, 4.4), points=40)]
        case "scribble":
            rows = int(rng.integers(1, 4))
            strokes = [_walk(rng, int(rng.integers(8, 16)), 0.18) + _points((0, 0.6 * row)) for row in range(rows)]
        case _:
            raise ValueError(f"no outline is known for {kind!r}")
    return Outline(fills=fills, holes=holes, strokes=strokes, stroke_width=0.0)


def place_outline(outline: Outline, stretch: float, angle: float, side: float, stroke_width: float) -> Outline:
    """Stretch x by sqrt(stretch) and y by its inverse, rotate, and scale the long side to `side` pixels.

    The result's corner of least x and y lies at the origin.
    """
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    matrix = np.diag(np.array([stretch**0.5, stretch**-0.5], np.float32)) @ turn
    extent = np.concatenate([*outline.fills, *outline.strokes]) @ matrix
    low = extent.min(axis=0)
    scale = np.float32(side / max(float((extent.max(axis=0) - low).max()), 1e-6))

    def moved(polygons: Sequence[Array]) -> list[Array]:
        return [(polygon @ matrix - low) * scale for polygon in polygons]

    fills, holes, strokes = moved(outline.fills), moved(outline.holes), moved(outline.strokes)
    return Outline(fills=fills, holes=holes, strokes=strokes, stroke_width=stroke_width)


def draw_coverage(outline: Outline, shift: tuple[float, float], rim: float) -> tuple[Coverage, Coverage]:
    """Coverage 0..255 of the form and of its inner rim of `rim` pixels (all zero if 0), moved by `shift` x, y.

    The form's origin is at pixel (1 + stroke_width/2) of the returned patches, which contain all of it.
    """
    extent = np.concatenate([*outline.fills, *outline.strokes]).max(axis=0)
    margin = 1 + outline.stroke_width / 2
    columns, rows = (int(np.ceil(side + 2 * margin + 1)) for side in extent)
    times = 4 if max(columns, rows) <= 48 else 2
    origin = np.array(shift, np.float32) + np.float32(margin)

    def corners(polygon: Array) -> list[tuple[float, float]]:
        # ImageDraw puts a pixel's centre at its whole coordinate, the outline puts it half a pixel further.
        return [(float(x), float(y)) for x, y in (polygon + origin) * times - np.float32(0.5)]

    form = Image.new("L", (columns * times, rows * times))
    draw = ImageDraw.Draw(form)
    for polygon in outline.fills:
        draw.polygon(corners(polygon), fill=255)
    for polygon in outline.holes:
        draw.polygon(corners(polygon), fill=0)
    for line in outline.strokes:
        draw.line(corners(line), fill=255, width=max(round(outline.stroke_width * times), 1), joint="curve")
    edge = Image.new("L", form.size)
    if rim > 0:
        pen = ImageDraw.Draw(edge)
        for polygon in (*outline.fills, *outline.holes):
            closed = corners(polygon)
            width = max(round(2 * rim * times), 1)
            # Round joints are slow, and unnecessary where a thin pen follows a curve of short steps.
            joint = "curve" if len(closed) <= 20 or width > 6 else None
            pen.line([*closed, closed[0], closed[1]], fill=255, width=width, joint=joint)
    return np.asarray(form.reduce(times)), np.asarray(edge.reduce(times))


def random_colours(rng: np.random.Generator, count: int, hue: float | None = None) -> Array:
    """(count, 3) RGB colours: of any hue, saturation and value in 0.1..1; or near `hue` (0..1) and not pale."""
    spread, least = (1.0, 0.9, 0.9), (0.0, 0.1, 0.1)
    if hue is not None:
        spread, least = (0.1, 0.5, 0.6), (hue - 0.05, 0.5, 0.4)
    hues, saturation, value = np.split(rng.random((count, 3)) * spread + least, 3, axis=1)
    sector = (np.array([5.0, 3.0, 1.0]) + hues * 6) % 6
    rgb = value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return np.asarray(rgb * 255, np.float32)


def contrasting_colour(rng: np.random.Generator, local: Array, least: float, hue: float | None = None) -> Array:
    """The first of 16 random colours that contrasts with `local` (n, 3), or the one that contrasts most.

    hue: see `random_colours`. A colour contrasts if its distance (root mean square over RGB) to four fifths of the n
    colours is at least `least`.
    """
    colours = random_colours(rng, 16, hue)
    differences = colours[:, None] - local
    distances = np.sqrt(np.einsum("knc,knc->kn", differences, differences) / 3)
    distances.sort(axis=1)
    nearest_fifth = distances[:, local.shape[0] // 5]
    enough = np.flatnonzero(nearest_fifth >= least)
    return np.asarray(colours[enough[0] if len(enough) else int(nearest_fifth.argmax())])


def _axes(shape: tuple[int, int], angle: float) -> tuple[Array, Array]:
    """(h, w) float32 pixel coordinates along and across the direction `angle`."""
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def fill_patch(style: str, shape: tuple[int, int], first: Array, second: Array, rng: np.random.Generator) -> Array:
    """(h, w, 3) colours of a patch: `flat` and `rimmed` are `first` alone, others mix `first` and `second`."""
    height, width = shape
    if style in ("flat", "rimmed"):
        return np.broadcast_to(first, (height, width, 3))
    along, across = _axes(shape, rng.uniform(0, np.pi))
    mix: Array
    match style:
        case "gradient":
            span = max(float(np.ptp(along)), 1.0)
            mix = (along - along.min()) / np.float32(span)
        case "striped":
            period = rng.uniform(4.0, max(5.0, min(16.0, min(shape) / 4)))
            mix = np.clip(np.sin(along * np.float32(2 * np.pi / period)) * 2 + 0.5, 0, 1)
        case "dotted":
            # Dots stay under 5 pixels, below the smallest object, so that none is a disc itself.
            period = rng.uniform(5.0, 8.0)
            k = np.float32(2 * np.pi / period)
            mix = np.clip((np.cos(along * k) + np.cos(across * k) - 0.6) * 2, 0, 1)
        case _:
            raise ValueError(f"no fill is known for {style!r}")
    return first + (second - first) * mix[..., None]


def _smooth_noise(
    size: tuple[int, int], cells: int, channels: int, amplitude: float, rng: np.random.Generator
) -> Array:
    """(H, W, channels) float32 in about -amplitude/2..amplitude/2: noise on a coarse grid, enlarged smoothly."""
    height, width = size
    grid = rng.integers(0, 256, (cells, cells, channels), dtype=np.uint8)
    image = Image.fromarray(grid if channels == 3 else grid[..., 0])
    enlarged = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    enlarged = (enlarged - np.float32(127.5)) * np.float32(amplitude / 255)
    return enlarged.reshape(height, width, channels)


def _pattern(size: tuple[int, int], rng: np.random.Generator) -> Array:
    """(H, W, 1) float32 in -1..1: stripes, a fine checker or a weave at a random angle."""
    period = rng.uniform(5, 22)
    along, across = (axis * np.float32(2 * np.pi / period) for axis in _axes(size, rng.uniform(0, np.pi)))
    kind = rng.integers(3)
    wave: Array
    if kind == 0:
        wave = np.sin(along)
    else:
        # Cells of checkers stay small: a large one would be an unlabelled square.
        fine = np.float32(min(period, 9.0) / period)
        wave = np.sin(along / fine) * np.sin(across / fine) if kind == 1 else np.sin(along + 2 * np.sin(across / 3))
    wave = np.clip(wave * np.float32(rng.uniform(1, 3)), -1, 1)
    return wave[..., None]


def draw_background(size: tuple[int, int], rng: np.random.Generator) -> Array:
    """(H, W, 3) busy background of muted colours: smooth noise of two scales, patches of pattern, grain."""
    canvas = _smooth_noise(size, int(rng.integers(2, 7)), 3, rng.uniform(40, 150), rng)
    canvas += random_colours(rng, 1)[0] * np.float32(0.6) + np.float32(50)
    grey = _smooth_noise(size, int(rng.integers(12, 48)), 1, rng.uniform(0, 70), rng)
    grey += rng.standard_normal(grey.shape, np.float32) * np.float32(rng.uniform(0, 12))
    canvas += grey
    for _ in range(int(rng.integers(0, 3))):
        where = np.clip(_smooth_noise(size, int(rng.integers(3, 6)), 1, 4.0, rng), 0, 1)
        tint = (random_colours(rng, 1)[0] - np.float32(128)) * np.float32(rng.uniform(0.15, 0.4))
        canvas += (_pattern(size, rng) * where) * tint
    light: Array = canvas.mean(axis=-1, keepdims=True)
    canvas = light + (canvas - light) * np.float32(rng.uniform(0.1, 0.5))
    mean: np.float32 = light.mean()
    canvas = mean + (canvas - mean) * np.float32(rng.uniform(0.4, 0.9))
    np.clip(canvas, 0, 255, out=canvas)
    return canvas
