"""Command line: ``python -m gur_spark.synthetic --out FOLDER``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gur_spark.errors import GurError
from gur_spark.synthetic.events import FIRST_DAY
from gur_spark.synthetic.files import COMPLETE, DAYS, write


def main(argv: Sequence[str] | None = None) -> int:
    """Write a log; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gur_spark.synthetic", description="Write a synthetic card log.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--days", type=int, default=DAYS, help=f"days from {FIRST_DAY} on")
    args = parser.parse_args(argv)
    if args.users < 1 or args.days < 1:
        parser.error("expected at least one user and one day")
    try:
        written = write(args.out, args.users, args.seed, args.days)
    except GurError as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return error.exit_code
    counts = json.loads((args.out / COMPLETE).read_text())["counts"]
    counted = ", ".join(f"{name} {value:,}" for name, value in counts.items())
    print(f"{args.out}: {counted}" + ("" if written else " (already there)"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
