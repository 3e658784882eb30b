"""`retinanet anchors` from a checkout."""

from retinanet.commands.anchors import main
from retinanet.commands.border import run

if __name__ == "__main__":
    raise SystemExit(run(main))
