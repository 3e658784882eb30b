"""`retinanet loss-distribution` from a checkout."""

from retinanet.commands.border import run
from retinanet.commands.loss_distribution import main

if __name__ == "__main__":
    raise SystemExit(run(main))
