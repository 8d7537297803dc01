"""List the events behind one number of a snapshot, and compute it once more in plain Python."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError
from gur_spark.snapshots.explanation import explain
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--user", required=True, metavar="ID", help="the user_id")
    parser.add_argument("--as-of", required=True, type=cli.day, metavar="DATE")
    parser.add_argument("--feature", required=True, metavar="COLUMN", help="a column of the aggregates")
    parser.add_argument("--known-at", type=cli.moment, metavar="TIME", help="default: as_of + aggregates.delay_days")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="list so many events (all are counted)")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    user = user_id(args.user, config)
    print(explain(tables.spark, config, user, args.as_of, args.feature, args.limit, args.known_at))


def user_id(text: str, config: Config) -> int | str:
    """The id of the command line as the tables have it."""
    if config.fields.user_id.type == "string":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--user: expected a whole number (fields.user_id.type is long), got '{text}'") from error


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("explain", __doc__ or "", stage, argv, options, recorded=False)


if __name__ == "__main__":
    sys.exit(main())
