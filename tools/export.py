"""`retinanet export` from a checkout."""

from retinanet.commands.border import run
from retinanet.commands.export import main

if __name__ == "__main__":
    raise SystemExit(run(main))
