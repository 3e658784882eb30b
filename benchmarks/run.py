"""Time this project and its peers: python benchmarks/run.py [PART ...] [--against ...]; see benchmarks/README.md."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure, print the tables, write the JSON file, check the floors."""
    from benchmarks.options import parse_arguments

    options = parse_arguments()
    from benchmarks.measure import measure_all
    from benchmarks.report import check_floors, read_floors, write_report
    from benchmarks.table import show

    floors = read_floors(options.check) if options.check is not None else ()
    report = measure_all(options)
    show(report)
    if options.json is not None:
        write_report(report, options.json)
    check_floors(report, floors, options.check)


if __name__ == "__main__":
    # Python puts this file's folder on the path; the modules are named from the project's.
    sys.path.insert(0, str(PROJECT))
    from retinanet.commands.border import run

    raise SystemExit(run(main))
