"""`retinanet config` from a checkout."""

from retinanet.commands.border import run
from retinanet.commands.config import main

if __name__ == "__main__":
    raise SystemExit(run(main))
