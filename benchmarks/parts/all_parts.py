"""Which module makes which contest."""

from benchmarks.contest import Contest
from benchmarks.options import Options
from benchmarks.parts import assign, data, evaluation, feed, infer, loss, postprocess, profile, start, train


def build_contest(part: str, options: Options) -> Contest:
    """The contest of one of options.PARTS; nothing heavy is built before its contestants are."""
    match part:
        case "train":
            return train.build_contest(options)
        case "infer":
            return infer.build_contest(options)
        case "loss":
            return loss.build_contest(options)
        case "assign":
            return assign.build_contest(options)
        case "postprocess":
            return postprocess.build_contest(options)
        case "data":
            return data.build_contest(options)
        case "feed":
            return feed.build_contest(options)
        case "profile":
            return profile.build_contest(options)
        case "eval":
            return evaluation.build_contest(options)
        case "start":
            return start.build_contest(options)
    raise AssertionError(f"{part} is no part")
