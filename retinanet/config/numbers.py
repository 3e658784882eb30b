"""Numbers that config keys and command lines share. Imports nothing, so that `--help` stays quick."""

HOLD_OUT = 0.2
"""Part of a data set's images that is evaluated on where it has no val split, unless another is given."""

COCO_DETECTIONS = 100
"""Detections of an image and class that COCO's own numbers count."""
