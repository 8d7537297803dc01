"""Remove folders that killed or replaced runs left and no table names."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=float,
        default=48,
        metavar="HOURS",
        help="keep what was written since; longer than any job runs (default: 48)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    before = datetime.now(UTC) - timedelta(hours=args.older_than)
    run.counts["folders"] = len(clean(tables, before, args.dry_run))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("clean", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
