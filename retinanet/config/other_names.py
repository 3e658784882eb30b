"""How other projects call what a config key or a word of a command does here."""

from collections.abc import Iterable

_STARTS = "it names a trained detector to start from; commands other than train take one as their first word"
_SHOWN = "it draws and counts what scores as much; eval.score_threshold drops what scores less"

KEYS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            *("init", "init_from", "init_weights", "checkpoint", "ckpt", "pretrained", "pretrained_weights", "weights"),
            *("start_from", "finetune", "fine_tune", "finetune_from", "load", "load_from", "load_weights", "transfer"),
            *("model_weights", "from_pretrained"),
        ),
        ("model.weights", _STARTS),
    ),
    **dict.fromkeys(
        ("resume", "resume_from", "resume_from_checkpoint", "restore"),
        ("model.weights", "it starts a new run from a detector; --resume continues a run"),
    ),
    **dict.fromkeys(("freeze", "frozen_parts", "freeze_backbone"), ("model.frozen", "a list of parts")),
    **dict.fromkeys(
        (
            *("conf", "conf_thres", "conf_thresh", "conf_threshold", "confidence", "confidence_threshold", "min_score"),
            *("score", "score_thr", "score_thresh", "threshold", "box_score_thresh"),
        ),
        ("eval.shown_score", _SHOWN),
    ),
    **dict.fromkeys(
        ("iou", "iou_thres", "iou_thresh", "iou_threshold", "nms", "nms_thr", "nms_thresh", "nms_threshold"),
        ("eval.nms_iou", ""),
    ),
    **dict.fromkeys(("max_det", "max_dets", "max_per_img", "detections_per_img"), ("eval.detections", "of an image")),
    **dict.fromkeys(("agnostic_nms", "agnostic", "class_agnostic_nms"), ("eval.class_agnostic", "")),
    **dict.fromkeys(
        ("imgsz", "img", "img_size", "image_size", "input_size", "img_scale", "resolution", "min_size"),
        ("data.shorter_side", "a list, with data.longer_side; or data.canvas=[HEIGHT,WIDTH]"),
    ),
    "max_size": ("data.longer_side", ""),
    **dict.fromkeys(
        ("batch", "batchsize", "bs", "ims_per_batch", "samples_per_gpu", "train_batch_size"),
        ("schedule.batch_size", "in training; eval.batch_size in other commands"),
    ),
    "nbs": ("schedule.reference_batch", ""),
    **dict.fromkeys(("lr0", "base_lr", "learning_rate"), ("schedule.lr", "")),
    "lrf": ("schedule.final_factor", ""),
    "cos_lr": ("schedule.shape", "steps, cosine or constant"),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs"), ("schedule.epochs", "")),
    **dict.fromkeys(("max_iter", "max_iters", "max_steps", "num_steps"), ("schedule.iterations", "")),
    **dict.fromkeys(("warmup_epochs", "warmup_iters", "warmup_steps"), ("schedule.warmup", "in steps")),
    **dict.fromkeys(("patience", "early_stopping"), ("schedule.early_stop", "in evaluations")),
    **dict.fromkeys(("num_workers", "nw", "dataloader_num_workers"), ("data.workers", "")),
    **dict.fromkeys(("amp", "half", "fp16", "bf16"), ("precision", "such as bfloat16")),
    **dict.fromkeys(("gpu", "gpus", "gpu_ids"), ("device", "such as cuda")),
    **dict.fromkeys(("project", "output_dir", "work_dir", "save_dir"), ("output", "the folder of a training's run")),
    "cache": ("data.cache_mib", "MiB of memory for decoded images"),
    "fraction": ("data.limit", "a number of images"),
    "fliplr": ("data.flip", ""),
    "flipud": ("data.vertical_flip", ""),
}
"""Name elsewhere -> the key, and a remark."""

_WORDS = {
    "save_txt": "YOLO labels are written with --format yolo",
    "save_conf": "--format yolo writes the score as the last number of a line",
    "save_crop": "crops are written with --format crops",
    "save_csv": "a table is written with --format csv",
    "save_json": "detections.json is always written",
    "nosave": "pictures are left out with --no-pictures",
    "source": "give the path without it: retinanet predict BEST.pt PATH. A data set is data=PATH",
    "augment": "test-time augmentation is --tta",
    "exist_ok": "a folder with files in it is written to with --overwrite",
}
"""Name elsewhere -> what does the same here."""


def known_elsewhere(name: str, keys: Iterable[str]) -> str:
    """Ending of a message: what does the same as another project's option; empty for a name that is not known.

    keys: the dotted keys that there are.
    """
    plain = name.lower().replace("-", "_")
    if plain in _WORDS:
        return _WORDS[plain]
    key, remark = KEYS.get(plain, ("", ""))
    if not key or key not in keys:
        return ""
    return f"did you mean {key}?" + (f" ({remark})" if remark else "")
