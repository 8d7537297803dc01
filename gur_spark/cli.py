"""Command lines of jobs: parse the options, load the configuration, build a session, call the job, record the run.

Exit codes are 0 for success, 1 for a job that failed, and 2 for a wrong configuration or command line. ``monitor`` also
has 3: it succeeded and found a value above an alert level.
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from gur_spark.config.file import load_config, to_yaml
from gur_spark.config.pipeline import Config
from gur_spark.config.training import Scoring
from gur_spark.errors import ConfigError, GurError

if TYPE_CHECKING:
    from gur_spark.tables.delta import Tables
    from gur_spark.tables.runs import Run

OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")

Stage = Callable[["Tables", Config, argparse.Namespace, "Run"], None]
Options = Callable[[argparse.ArgumentParser], None]


def parser(job: str, description: str) -> argparse.ArgumentParser:
    """Parser with the options that all jobs have."""
    made = argparse.ArgumentParser(prog=f"jobs/{job}.py", description=description)
    made.add_argument("--config", required=True, metavar="FILE", help="the pipeline's YAML file")
    made.add_argument("--print-config", action="store_true", help="show the merged configuration and stop")
    made.epilog = "Any key of the configuration can be overridden: tables.root=/data source.path=/landing"
    return made


def day(text: str) -> date:
    """Parse an as-of date."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a date YYYY-MM-DD, got '{text}'") from error


def moment(text: str) -> datetime:
    """Parse a UTC time; a date is its midnight."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD or YYYY-MM-DDTHH:MM (UTC), got '{text}'") from error
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def days(text: str) -> timedelta:
    """Parse a number of days, with or without a ``d``."""
    number = text.removesuffix("d")
    if not number.isdigit() or not int(number):
        raise argparse.ArgumentTypeError(f"expected a number of days such as 7d, got '{text}'")
    return timedelta(days=int(number))


def positive(text: str) -> int:
    """Parse a number above 0."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return int(text)


def vocabulary_version(text: str) -> str:
    """Parse a vocabulary version: a number, or ``newest``."""
    if text != "newest" and not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number or 'newest', got '{text}'")
    return text


def snapshot_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options of jobs that make snapshots."""
    every = "default: every date the config trains or scores on"
    arguments.add_argument("--as-of", nargs="+", type=day, metavar="DATE", help=every)
    arguments.add_argument("--from", dest="first", type=day, metavar="DATE", help="a backfill: the first as-of date")
    arguments.add_argument("--to", dest="last", type=day, metavar="DATE", help="a backfill: no as-of date after this")
    arguments.add_argument("--every", type=days, metavar="DAYS", help="a backfill: days between two dates, such as 7d")
    arguments.add_argument(
        "--known-at",
        type=moment,
        metavar="TIME",
        help="count what had landed before this (UTC); default: as_of midnight + aggregates.delay_days",
    )
    arguments.add_argument("--again", action="store_true", help="also the dates that were made from the same events")
    arguments.add_argument(
        "--vocabulary",
        type=vocabulary_version,
        metavar="VERSION",
        help="a version, or newest; default: the published model's (the newest before the first publish)",
    )


def as_of_dates(config: Config, args: argparse.Namespace) -> list[date]:
    """Dates that the options of ``snapshot_options`` name, ascending.

    Raises:
        ConfigError: there is none, or a backfill lacks one of its options.
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


def scored_dates(scoring: Scoring, given: Sequence[date] | None = None) -> Sequence[date]:
    """Dates that were given, or those that the configuration scores.

    Raises:
        ConfigError: there is none.
    """
    dates = given or scoring.as_of
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or scoring.as_of in the config")
    return dates


def main(
    job: str,
    description: str,
    stage: Stage,
    argv: Sequence[str] | None = None,
    options: Options | None = None,
    check: Callable[[Config], None] | None = None,
    recorded: bool = True,
) -> int:
    """Run one job; returns its exit code.

    Args:
        check: refuses a configuration that the job cannot use, before Spark starts.
        recorded: whether the run has a row in ``runs``; a job that only reads has none.
    """
    arguments = parser(job, description)
    if options:
        options(arguments)
    given = list(sys.argv[1:] if argv is None else argv)
    # Overrides are taken out first, so that they may also follow an option with several values, such as --as-of.
    overrides = [word for word in given if OVERRIDE.match(word)]
    args = arguments.parse_args([word for word in given if not OVERRIDE.match(word)])
    args.overrides = overrides
    _log_to_console()
    try:
        config = load_config(args.config, overrides)
        if args.print_config:
            print(to_yaml(config), end="")
            return 0
        if check:
            check(config)
        return _run(job, config, args, stage, recorded)
    except GurError as error:
        print(f"{job}: {error}", file=sys.stderr)
        return error.exit_code


def _run(job: str, config: Config, args: argparse.Namespace, stage: Stage, recorded: bool) -> int:
    # Spark is imported only now, so that a wrong configuration is refused at once.
    from gur_spark.session import build_session
    from gur_spark.tables.open import open_tables
    from gur_spark.tables.runs import Run, record

    tables = open_tables(build_session(config), config.tables)
    if not recorded:
        unrecorded = Run(id="", job=job, parameters={})
        stage(tables, config, args, unrecorded)
        return unrecorded.exit_code
    with record(tables, job, parameters(config.name, args)) as run:
        stage(tables, config, args, run)
    return run.exit_code


def parameters(pipeline: str, args: argparse.Namespace) -> dict[str, str]:
    """Options of the command line as text, for the run's row."""
    given = {k: v for k, v in vars(args).items() if v not in (None, [], False) and k != "print_config"}
    return {
        "pipeline": pipeline,
        **{k: str(v) if not isinstance(v, list) else " ".join(map(str, v)) for k, v in given.items()},
    }


def _log_to_console() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("gur_spark").setLevel(logging.INFO)
