"""What a detector finds in one image.

Legend: D detections, best first.
"""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinanet.data.loose_images import ImageLike, read_image
from retinanet.data.pixel_depth import DepthRange
from retinanet.errors import ResourceError
from retinanet.run.pictures import draw_results
from retinanet.structures import Category

if TYPE_CHECKING:
    from supervision import Detections

NOTEBOOK_SIDE = 1280
"""Maximum pixels of a side of the picture that a notebook shows."""


class FoundObjects:
    """The objects that a detector found in one image, best first; `len()` is their number.

    boxes: (D, 4) float32 array, (x1, y1, x2, y2) in pixels of the image as it is shown (after an EXIF rotation).
    scores: (D,) float32 array, from 0 to 1.
    labels: (D,) int64 array, index of the class in the detector's `names`.
    names: (D,) array of text, the names of the classes.
    size: (height, width) of the image in pixels.
    source: what was passed to the detector: a path, or the object itself.
    image_id: position in the list or folder that was passed, from 1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: NDArray[np.str_]

    def __init__(
        self,
        results: Sequence[dict[str, Any]],
        categories: tuple[Category, ...],
        *,
        source: ImageLike,
        size: tuple[int, int],
        image_id: int,
        shown_score: float,
        depth_range: DepthRange | None,
    ) -> None:
        index = {category.id: k for k, category in enumerate(categories)}
        corners = [(x, y, x + w, y + h) for x, y, w, h in (result["bbox"] for result in results)]
        self.boxes = np.array(corners, dtype=np.float32).reshape(-1, 4)
        self.scores = np.array([result["score"] for result in results], dtype=np.float32)
        self.labels = np.array([index[result["category_id"]] for result in results], dtype=np.int64)
        self.names = np.array([categories[label].name for label in self.labels], dtype=np.str_)
        self.size = size
        self.source = source
        self.image_id = image_id
        self._results = results
        self._categories = categories
        self._shown_score = shown_score
        self._depth_range = depth_range

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        shown = Counter(self.above(self._shown_score).names.tolist())
        what = ", ".join(f"{count} {name}" for name, count in shown.most_common()) or "nothing"
        height, width = self.size
        where = f" in {self.source}" if isinstance(self.source, str | Path) else ""
        return (
            f"<FoundObjects{where}, {width} x {height} pixels: {what} (score {self._shown_score:g} or more), "
            f"{len(self)} detections in all>"
        )

    def above(self, score: float) -> "FoundObjects":
        """Only the detections that score at least `score`."""
        return FoundObjects(
            [result for result in self._results if result["score"] >= score],
            self._categories,
            source=self.source,
            size=self.size,
            image_id=self.image_id,
            shown_score=self._shown_score,
            depth_range=self._depth_range,
        )

    def plot(self, score: float | None = None) -> Image.Image:
        """The image with the boxes of detections that score at least `score`.

        score: None is config `eval.shown_score` of the detector, as for the pictures of `retinanet predict`. A file is
        read again. Small images are enlarged, so that labels can be read.
        """
        least = self._shown_score if score is None else score
        pixels = read_image(self.source, f"image {self.image_id}", self._depth_range).permute(1, 2, 0).numpy()
        return Image.fromarray(draw_results(pixels, self._results, self._categories, least))

    def to_coco(self, image_id: int | None = None) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, bbox (x, y, width, height) and score of each detection.

        image_id: of the image in its data set; None is `self.image_id`.
        """
        number = self.image_id if image_id is None else image_id
        return [{**result, "image_id": number, "bbox": [*result["bbox"]]} for result in self._results]

    def to_supervision(self) -> "Detections":
        """`supervision.Detections` with xyxy, confidence, class_id and data["class_name"].

        Raises ResourceError if the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ResourceError("to_supervision: needs supervision; install with `pip install supervision`.") from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": self.names.copy()},
        )

    def _repr_png_(self) -> bytes:
        """What a notebook shows: `plot()`."""
        picture = self.plot()
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        file = io.BytesIO()
        picture.save(file, "png")
        return file.getvalue()
