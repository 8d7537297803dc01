"""Turn landed raw files into typed, deduplicated events; reject bad rows into quarantine."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gur_spark import cli
from gur_spark.config import Config

if TYPE_CHECKING:
    from gur_spark.runs import Run
    from gur_spark.tables import Tables


def stage(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    from gur_spark.events.ingest import ingest

    ingest(tables, config, run, landings=args.landing, everything=args.all)


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--landing",
        type=cli.day,
        nargs="+",
        default=[],
        metavar="DATE",
        help="replace these landings, changed or not (default: those that are new or changed)",
    )
    parser.add_argument("--all", action="store_true", help="replace every landing, changed or not")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("ingest", (__doc__ or "").splitlines()[0], stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
