"""`retinanet compare` from a checkout."""

from retinanet.commands.border import run
from retinanet.commands.compare import main

if __name__ == "__main__":
    raise SystemExit(run(main))
