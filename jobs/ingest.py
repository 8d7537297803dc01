"""Turn landed raw files into typed events without duplicates, and write bad rows to the quarantine."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gur_spark import cli
from gur_spark.config.logs import chosen_logs
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError

if TYPE_CHECKING:
    from gur_spark.tables.delta import Tables
    from gur_spark.tables.runs import Run


def stage(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    from gur_spark.events.ingest import corrected_landings
    from gur_spark.serving.stale import log_stale, stale_after

    read_landings(tables, config, args, run)
    stale = stale_after(tables, config, [*run.inputs, *corrected_landings(run.outputs)])
    run.add(stale.account)
    log_stale(stale)


def read_landings(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    from gur_spark.events.ingest import ingest

    if args.landing and config.logs and len(args.log) != 1:
        raise ConfigError(f"--landing needs --log NAME where there are several logs: {list(config.raw_logs)}")
    chosen = chosen_logs(config.ingest_order, args.log)
    for name in [name for name in config.ingest_order if name in chosen]:
        run.add(ingest(tables, config, run.id, landings=args.landing, everything=args.all, name=name))


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--landing",
        type=cli.day,
        nargs="+",
        default=[],
        metavar="DATE",
        help="replace these landings, changed or not (default: those that are new or changed)",
    )
    parser.add_argument("--log", nargs="+", default=[], metavar="NAME", help="only these logs (default: all)")
    parser.add_argument("--all", action="store_true", help="replace every landing, changed or not")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("ingest", (__doc__ or "").splitlines()[0], stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
