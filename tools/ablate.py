"""`retinanet ablate` from a checkout."""

from retinanet.commands.ablate import main
from retinanet.commands.border import run

if __name__ == "__main__":
    raise SystemExit(run(main))
