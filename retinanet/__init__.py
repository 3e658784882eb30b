"""RetinaNet (Lin et al., arXiv 1708.02002): training, evaluation and ablation of dense detectors.

The public Python API is what `__all__` lists; every other name of the package may change between versions. A name is
imported when it is first used, so that `import retinanet` loads neither torch nor NumPy.
"""

TYPE_CHECKING = False
"""True for type checkers and editors, as the constant of `typing`, whose import takes ten times as long as this file's.
"""

__all__ = [
    "CheckedLoss",
    "CheckpointError",
    "ComparisonResult",
    "ConfigError",
    "DataError",
    "DetectionData",
    "EvaluationResult",
    "FoundObjects",
    "Interrupted",
    "NumericalError",
    "ObjectDetector",
    "ResourceError",
    "TrainedRun",
    "UserError",
    "check_loss",
    "compare",
    "evaluate",
    "load",
    "train",
]

if TYPE_CHECKING:
    from retinanet.api.found import FoundObjects
    from retinanet.api.load import ObjectDetector, load
    from retinanet.api.measure import ComparisonResult, EvaluationResult, compare, evaluate
    from retinanet.api.own_loss import CheckedLoss, check_loss
    from retinanet.api.python_data import DetectionData
    from retinanet.api.train import TrainedRun, train
    from retinanet.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        Interrupted,
        NumericalError,
        ResourceError,
        UserError,
    )
else:

    def __getattr__(name: str) -> object:
        """The public object of this name, which is imported now."""
        match name:
            case "load" | "ObjectDetector":
                from retinanet.api import load as module
            case "FoundObjects":
                from retinanet.api import found as module
            case "check_loss" | "CheckedLoss":
                from retinanet.api import own_loss as module
            case "DetectionData":
                from retinanet.api import python_data as module
            case "train" | "TrainedRun":
                from retinanet.api import train as module
            case "evaluate" | "EvaluationResult" | "compare" | "ComparisonResult":
                from retinanet.api import measure as module
            case _ if name in __all__:
                from retinanet import errors as module
            case _:
                raise AttributeError(f"module 'retinanet' has no attribute {name!r}; it has {', '.join(__all__)}")
        return vars(module)[name]

    def __dir__() -> list[str]:
        return [*__all__, "__doc__", "__file__", "__name__", "__path__"]
