"""Compare whole programs side by side and print Markdown tables.

    python tests/bench/bench.py [speed|size|memory|empty|workers|gpu|all] [options]

README.md says what each section measures and how long it takes.
"""

import argparse
import tempfile
from datetime import date
from pathlib import Path

import empty
import gpu
import memory
import size
import speed
import workers
from report import Report, machine, software

EVERYWHERE = {"speed": speed, "size": size, "memory": memory, "empty": empty, "workers": workers}
SECTIONS = {**EVERYWHERE, "gpu": gpu}


def names(text):
    return text.split(",")


def numbers(text):
    return [int(part) for part in text.split(",")]


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", nargs="?", default="all", choices=[*SECTIONS, "all"])
    parser.add_argument("--nets", type=names, help="of probe,bundled,fcn8s")
    parser.add_argument("--sizes", type=numbers, help="sides of square rasters in px, as 4096,8192")
    parser.add_argument("--peers", type=names, help="parts of their names, as monai,geodeep")
    parser.add_argument("--runs", type=int, default=3, help="rounds that the medians are of")
    parser.add_argument("--device", default="cuda", help="of the section gpu")
    parser.add_argument("--work", type=Path, help="keep rasters and models here for the next time")
    parser.add_argument("--out", type=Path, help="append the tables to this file")
    parser.add_argument(
        "--quick-labels", action="store_true", help="let peers take labels by max, not by argmax"
    )
    return parser.parse_args()


def main():
    args = options()
    report = Report(args.out)
    report.line(f"\n{date.today()}: {machine()}; {software()}.")
    chosen = EVERYWHERE if args.section == "all" else [args.section]
    with tempfile.TemporaryDirectory() as folder:
        work = (args.work or Path(folder)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            SECTIONS[name].measure(report, work, args)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted; what was measured is above") from None
