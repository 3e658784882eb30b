"""The parts of the benchmarks."""

from benchmarks.contest import Contest
from benchmarks.options import Options
from benchmarks.parts import evaluation, kernels, loading, networks, start

BUILDERS = {
    "train": networks.build_train,
    "infer": networks.build_infer,
    "loss": kernels.build_loss,
    "assign": kernels.build_assign,
    "postprocess": kernels.build_postprocess,
    "data": loading.build_data,
    "feed": loading.build_feed,
    "profile": networks.build_profile,
    "eval": evaluation.build_evaluation,
    "start": start.build_start,
}


def build_contest(part: str, options: Options) -> Contest:
    """The contest of one of options.PARTS; nothing heavy is built before its contestants are."""
    return BUILDERS[part](options)
