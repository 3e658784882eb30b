"""`retinanet convert` from a checkout."""

from retinanet.commands.border import run
from retinanet.commands.convert_weights import main

if __name__ == "__main__":
    raise SystemExit(run(main))
