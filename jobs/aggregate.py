"""Aggregate events over the declared windows: one Parquet snapshot per as-of date."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from datetime import date, timedelta

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError
from gur_spark.registry.known import find_model
from gur_spark.serving.publishing import published
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", nargs="+", type=cli.day, metavar="DATE", help="default: every date the config trains or scores on"
    )
    parser.add_argument("--from", dest="first", type=cli.day, metavar="DATE", help="a backfill: the first as-of date")
    parser.add_argument("--to", dest="last", type=cli.day, metavar="DATE", help="a backfill: no as-of date after this")
    parser.add_argument("--every", type=days, metavar="DAYS", help="a backfill: days between two dates, such as 7d")
    parser.add_argument(
        "--known-at",
        type=cli.moment,
        metavar="TIME",
        help="count what had landed before this (UTC); default: as_of midnight + aggregates.delay_days",
    )
    parser.add_argument(
        "--route",
        choices=["full", "incremental", "auto"],
        default="auto",
        help="incremental: from an earlier snapshot that keeps a state (aggregates.incremental_days), or fail; "
        "full: from all events; auto: of one date incremental where it can be, else full; default: %(default)s",
    )
    parser.add_argument("--again", action="store_true", help="also the dates that were made from the same events")
    parser.add_argument(
        "--vocabulary",
        type=vocabulary_version,
        metavar="VERSION",
        help="a version, or newest; default: the published model's (the newest before the first publish)",
    )


def vocabulary_version(text: str) -> str:
    """A version of the command line: a number, or ``newest``."""
    if text != "newest" and not text.isdigit():
        raise ArgumentTypeError(f"expected a number or 'newest', got '{text}'")
    return text


def days(text: str) -> timedelta:
    """A number of days of the command line, with or without a ``d``."""
    number = text.removesuffix("d")
    if not number.isdigit() or not int(number):
        raise ArgumentTypeError(f"expected a number of days such as 7d, got '{text}'")
    return timedelta(days=int(number))


def as_of_dates(config: Config, args: Namespace) -> list[date]:
    """The dates that are asked for, ascending.

    Raises:
        ConfigError: none, or a backfill that is not whole.
    """
    backfill = (args.first, args.last, args.every)
    if not any(backfill):
        dates = args.as_of or [*config.training.as_of, *config.scoring.as_of]
    elif args.as_of or not all(backfill):
        raise ConfigError("a backfill takes --from DATE --to DATE --every DAYS, all three and without --as-of")
    else:
        dates = [args.first + args.every * n for n in range((args.last - args.first) // args.every + 1)]
    if not dates:
        raise ConfigError(
            f"no as-of date from {args.first} to {args.last}"
            if args.first
            else "no as-of date: give --as-of DATE, or training.as_of and scoring.as_of in the config"
        )
    return sorted(set(dates))


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = as_of_dates(config, args)
    vocabulary = chosen_vocabulary(tables, config, args.vocabulary)
    for snapshot in aggregate_snapshots(tables, config, dates, run, vocabulary, args.known_at, args.again, args.route):
        run.inputs["vocabulary"] = f"{snapshot.vocabulary_version} {snapshot.vocabulary_hash}"
        run.outputs[str(snapshot.as_of)] = snapshot.path
        run.counts[f"rows {snapshot.as_of}"] = snapshot.rows


def chosen_vocabulary(tables: Tables, config: Config, given: str | None) -> int | None:
    """The version to encode with; None is the newest.

    The default is the published model's own, so that a refit does not stop the daily scoring.
    """
    if given == "newest" or (given is None and published(tables, config) is None):
        return None
    return int(given) if given else find_model(tables, config).vocabulary_version


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("aggregate", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
