"""`retinanet eval` from a checkout."""

from retinanet.commands.border import run
from retinanet.commands.evaluate import main

if __name__ == "__main__":
    raise SystemExit(run(main))
