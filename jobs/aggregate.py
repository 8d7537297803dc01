"""Aggregate events over the declared windows: one Parquet snapshot per as-of date."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.registry.vocabularies import chosen_vocabulary
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    cli.snapshot_options(parser)
    parser.add_argument(
        "--route",
        choices=["full", "incremental", "auto"],
        default="auto",
        help="incremental: from an earlier snapshot that keeps a state (aggregates.incremental_days), or fail; "
        "full: from all events; auto: of one date incremental where it can be, else full; default: %(default)s",
    )


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = cli.as_of_dates(config, args)
    vocabulary = chosen_vocabulary(tables, config, args.vocabulary)
    made = aggregate_snapshots(tables, config, dates, run.id, vocabulary, args.known_at, args.again, args.route)
    run.add(made.account)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("aggregate", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
