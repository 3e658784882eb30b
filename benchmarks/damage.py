"""Files damaged at random, and whether their readers notice."""

import json
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from retinanet.errors import UserError


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with a flipped bit, a zeroed piece or a missing end."""
    copy, at = bytearray(data), rng.randrange(len(data))
    match rng.randrange(3):
        case 0:
            copy[at] ^= 1 << rng.randrange(8)
        case 1:
            copy[at : at + 512] = bytes(len(copy[at : at + 512]))
        case _:
            del copy[at:]
    return bytes(copy)


def count_refused(path: Path, read: Callable[[Path], dict[str, torch.Tensor]], tries: int, seed: int) -> int:
    """Damaged copies of a file that are refused, or whose tensors are what they were."""
    data, rng, good, expected = path.read_bytes(), random.Random(seed), 0, read(path)
    for _ in range(tries):
        path.write_bytes(damaged(data, rng))
        try:
            found = read(path)
            good += found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
        except UserError:
            good += 1
        except Exception:
            traceback.print_exc()
    path.write_bytes(data)
    return good


def changed(data: bytes, tree: Any, rng: random.Random) -> bytes:
    """Bytes damaged at random, or a tree of plain data with one value replaced."""
    if rng.random() < 0.5:
        return damaged(data, rng)
    node = tree
    while isinstance(node, dict | list) and node:
        key: Any = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.2:
            node[key] = rng.choice([None, -1, 0, 1e308, "", "\x1b[2J", "a\0b", [], {}, True, 2**70, "é" * 999, [[[]]]])
            break
        node = node[key]
    return json.dumps(tree).encode()
