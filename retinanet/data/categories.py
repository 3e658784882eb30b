"""Classes of one data set read as those of another: of a split as those of training, or as a detector's.

Splits that were exported one by one number their classes anew, leave out those that do not occur, or spell them in
another way. A name that both lists have once means the same class.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retinanet.data.class_names import folded_name
from retinanet.data.coco import CocoDataset, noted
from retinanet.errors import DataError
from retinanet.structures import Category


def aligned(dataset: CocoDataset, known: Sequence[Category], source: str) -> CocoDataset:
    """The data set with class k being class k of `known`; matched by name where ids differ, and noted.

    Its ground truth stays that of the file, and `categories` have the file's ids: position k is class k, and a class
    that the file does not list has an id that no entry has. Categories without annotations that `known` does not have
    are left out. source: what `known` is of, for notes and errors. Raises DataError where a category with annotations
    has no counterpart.
    """
    if dataset.categories == tuple(known):
        return dataset
    meant = {own: k for own in dataset.categories if (k := _counterpart(own, dataset.categories, known)) is not None}
    used = {row["category_id"] for row in dataset.ground_truth["annotations"]}
    strange = [own for own in dataset.categories if own not in meant]
    if not meant or any(own.id in used for own in strange) or len(set(meant.values())) < len(meant):
        raise DataError(_describe_differing(dataset, known, source))
    owns = {k: own for own, k in meant.items()}
    free = min(own.id for own in dataset.categories) - 1
    categories = tuple(
        Category(id=owns[k].id if k in owns else free - k, name=other.name) for k, other in enumerate(known)
    )
    places = np.array([meant.get(own, -1) for own in dataset.categories], dtype=np.int64)
    images = tuple(image._replace(classes_G=places[image.classes_G]) for image in dataset.images)
    return noted(
        replace(dataset, categories=categories, images=images),
        _changed_note([(own, known[k]) for own, k in meant.items() if own != known[k]], len(meant), source),
        _names_note("classes without objects that {} does not have are left out", strange, source),
        _names_note("classes of {} are not listed here", [one for k, one in enumerate(known) if k not in owns], source),
    )


def _counterpart(own: Category, owns: Sequence[Category], known: Sequence[Category]) -> int | None:
    """Position of the same category, or else of the one that alone has its name, on both sides; spelt as here first."""
    if own in known:
        return known.index(own)
    for fold in (str, folded_name):
        name = fold(own.name)
        same = [k for k, other in enumerate(known) if fold(other.name) == name]
        if len(same) == 1 and sum(fold(one.name) == name for one in owns) == 1:
            return same[0]
    return None


def _changed_note(changed: Sequence[tuple[Category, Category]], total: int, source: str) -> str:
    if not changed:
        return ""
    own, other = changed[0]
    return (
        f"{len(changed)} of {total} classes have another id or spelling than in {source}, and are matched by name: "
        f"{own.id} {own.name!r} is {other.id} {other.name!r} there"
    )


def _names_note(what: str, categories: Sequence[Category], source: str) -> str:
    return f"{len(categories)} {what.format(source)}: {_first(categories)}" if categories else ""


def _describe_differing(dataset: CocoDataset, known: Sequence[Category], source: str) -> str:
    own = [one for one in dataset.categories if one not in known]
    there = [one for one in known if one not in dataset.categories]
    return (
        f"{dataset.annotation_file}: its categories differ from those of {source}: only here {_first(own)}, only there "
        f"{_first(there) or 'none'}, and their names do not decide which is which. Use data with the names of the "
        "training data's categories."
    )


def _first(categories: Sequence[Category]) -> str:
    return ", ".join(f"{one.id} {one.name!r}" for one in categories[:5]) + (", ..." if len(categories) > 5 else "")
