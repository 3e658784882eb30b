"""Metadata of an exported file: everything that is needed to run it."""

import json
from importlib.util import find_spec
from typing import Literal, NamedTuple

from retinanet.config.load import config_from_dict, config_to_dict
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, ResourceError
from retinanet.structures import Category

FORMAT = "retinanet-export-1"
KEY = "retinanet"
"""Key of the file's metadata entry."""

Kind = Literal["onnx", "pt2", "aoti"]

INPUTS = ("images", "sizes")
"""(B, 3, H, W) RGB in 0..255, padded at the right and bottom; (B, 2) int64 (height, width) of each image in it."""
RAW_OUTPUTS = ("boxes", "scores")
"""(B, A, 4) float32 xyxy in canvas pixels; (B, A, K) float32 in 0..1: every anchor, finest level first."""
NMS_OUTPUTS = ("boxes", "scores", "classes", "counts")
"""(B, D, 4), (B, D), (B, D) int64 index into the categories: best first, clipped to the image, in canvas pixels. The
first counts (B,) int64 of each image are detections; the rest is padded with 0, 0 and -1."""


class ExportInfo(NamedTuple):
    """The metadata of an exported file."""

    kind: Kind
    config: Config
    categories: tuple[Category, ...]
    step: int
    nms: bool
    """Whether the graph includes NMS with the thresholds of config `eval`."""
    int8: bool

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where the file runs; an ONNX file also where eval.onnx_provider says."""
        return "cuda" if self.kind == "aoti" and self.config.device == "cuda" else "cpu"

    @property
    def pixels(self) -> Literal["uint8", "float32"]:
        """Type of the input images: integers, unless resizing yields fractions."""
        return "float32" if self.config.data.resize == "float_bilinear" else "uint8"

    def as_text(self) -> str:
        """As JSON."""
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "images": self.pixels,
            "outputs": NMS_OUTPUTS if self.nms else RAW_OUTPUTS,
            "nms": self.nms,
            "int8": self.int8,
            "step": self.step,
            "categories": [category._asdict() for category in self.categories],
            "config": config_to_dict(self.config),
        }
        return json.dumps(content, ensure_ascii=True)


def read_info(text: str | None, source: str) -> ExportInfo:
    """Parse the metadata. Raises CheckpointError, naming `source`, if `text` is not this project's."""
    try:
        content = json.loads(text or "")
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        return ExportInfo(
            kind=content["kind"],
            config=config_from_dict(content["config"], source),
            categories=tuple(Category(int(c["id"]), str(c["name"])) for c in content["categories"]),
            step=int(content["step"]),
            nms=bool(content["nms"]),
            int8=bool(content["int8"]),
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{source}: not a file that retinanet export wrote (no {FORMAT!r} metadata).") from error
    except ValueError as error:
        raise CheckpointError(f"{source}: cannot be used: {error}; export the checkpoint again.") from error


def need(*packages: str) -> None:
    """Raise ResourceError if one of `packages` is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ResourceError(f"export: needs {' and '.join(missing)}; install with `pip install {' '.join(missing)}`.")
