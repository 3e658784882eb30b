"""Where things are: the checkout, and the data beside it that tests use where they are there."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RECIPES = PROJECT / "configs" / "recipes"
SHARED = PROJECT.parent / "shared" / "data"
"""Real data and detectors' outputs; tests that need them skip where the folder is absent."""
PAIRS = SHARED / "eval_pairs"
