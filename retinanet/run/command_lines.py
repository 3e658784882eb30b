"""The commands that go on from a run, as they must be typed where it was started."""

import shlex
from pathlib import Path
from typing import NamedTuple


class CommandLines(NamedTuple):
    """How the project's commands are called."""

    resume: str | None = None
    """The whole command line that continues the run; None for one that was started from Python."""
    predict: str = "retinanet predict"
    evaluate: str = "retinanet eval"
    export: str = "retinanet export"
    doctor: str = "retinanet doctor"

    def after(self, best: Path) -> list[str]:
        """The next three commands for the best checkpoint of a run."""
        checkpoint, numbers = (shlex.quote(str(path)) for path in (best, best.parent.parent / "eval.json"))
        return [
            f"{self.predict} {checkpoint} PHOTOS/ --thresholds {numbers}",
            f"{self.evaluate} {checkpoint}",
            f"{self.export} {checkpoint} {shlex.quote(str(best.parent.parent / 'best.onnx'))}",
        ]
