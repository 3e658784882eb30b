"""How often the intervals of `retinanet eval --intervals` contain what they are about, on samples of a real data set.

    python -m benchmarks.interval_coverage GT.json DT.json.gz --images 100 500 --draws 150

The whole data set stands for "all images like these". Each draw takes images of it without replacement and measures
intervals on them; counted is how often these contain the metric of the whole set.

Legend: I images, N annotations, D detections, M metrics (METRIC_NAMES).
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results
from retinanet.scoring.bootstrap import draw_multiplicities
from retinanet.scoring.columns import DetectionColumns, TruthColumns, detection_columns, truth_columns
from retinanet.scoring.evaluation import METRIC_NAMES
from retinanet.scoring.intervals import percentile_interval
from retinanet.scoring.matches import match_columns
from retinanet.scoring.metric_intervals import pivotal_interval
from retinanet.scoring.samples import class_metrics, mean_over_classes


def main() -> None:
    """Parse the arguments, print one line for each number of images and kind of interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground_truth", type=Path)
    parser.add_argument("detections", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 500], metavar="N")
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    content = load_ground_truth(arguments.ground_truth)
    truth = truth_columns(content)
    found = detection_columns(truth, read_results(arguments.detections, content))
    whole_M = metrics_of(truth, found, 0, 0)[0]
    print(f"AP of all {len(truth.image_ids_I):,} images: {100 * whole_M[0]:.1f}; share of {arguments.draws} draws")
    for images in arguments.images:
        generator = np.random.default_rng(arguments.seed)
        ap, inside = [], []
        for _ in range(arguments.draws):
            kept_I = np.sort(generator.choice(len(truth.image_ids_I), images, replace=False))
            part = part_of(truth, found, kept_I)
            metrics_RM = metrics_of(*part, arguments.resamples, int(generator.integers(1 << 30)))
            ap.append(metrics_RM[0, 0])
            ends = [[of(metrics_RM[:, m]) for m in range(len(whole_M))] for of in (pivotal_interval, percentiles)]
            inside.append([[low <= x <= high for (low, high), x in zip(row, whole_M)] for row in ends])
        for name, shares_M in zip(("pivotal", "percentiles"), np.mean(inside, axis=0)):
            texts = ", ".join(f"{metric} {share:.2f}" for metric, share in zip(METRIC_NAMES, shares_M))
            print(f"{images} images, mean AP {100 * np.mean(ap):.1f}, {name}: {texts}", flush=True)


def percentiles(metric_R: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile interval of resamples after row 0, for comparison."""
    return percentile_interval(metric_R[1:])


def metrics_of(truth: TruthColumns, found: DetectionColumns, resamples: int, seed: int) -> NDArray[np.float64]:
    """(1 + resamples, M) metrics of the data set itself and of its resamples."""
    images = len(truth.image_ids_I)
    drawn_RI = draw_multiplicities(images, max(resamples, 1), seed)[:resamples]
    multiplicity_RI = np.concatenate([np.ones((1, images), np.int32), drawn_RI])
    return mean_over_classes(class_metrics(match_columns(truth, found), multiplicity_RI))


def part_of(
    truth: TruthColumns, found: DetectionColumns, kept_I: NDArray[np.int64]
) -> tuple[TruthColumns, DetectionColumns]:
    """The data set with the images at these indices alone."""
    place_I = np.full(len(truth.image_ids_I), -1)
    place_I[kept_I] = np.arange(len(kept_I))
    in_N, in_D = place_I[truth.image_N] >= 0, place_I[found.image_D] >= 0
    objects = truth._replace(
        image_ids_I=truth.image_ids_I[kept_I],
        image_names_I=tuple(truth.image_names_I[i] for i in kept_I),
        image_N=place_I[truth.image_N[in_N]],
        class_N=truth.class_N[in_N],
        boxes_N4=truth.boxes_N4[in_N],
        area_N=truth.area_N[in_N],
        crowd_N=truth.crowd_N[in_N],
    )
    detections = DetectionColumns(
        image_D=place_I[found.image_D[in_D]],
        class_D=found.class_D[in_D],
        boxes_D4=found.boxes_D4[in_D],
        score_D=found.score_D[in_D],
    )
    return objects, detections


if __name__ == "__main__":
    main()
