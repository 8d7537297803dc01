"""Turn landed raw files into typed, deduplicated events; reject bad rows into quarantine."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gur_spark import cli
from gur_spark.config.logs import MAIN
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, nearest

if TYPE_CHECKING:
    from gur_spark.tables.delta import Tables
    from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")


def stage(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    read_landings(tables, config, args, run)
    report_stale(tables, config, run)


def read_landings(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    from gur_spark.events.ingest import ingest

    if args.landing and config.logs and len(args.log) != 1:
        raise ConfigError(f"--landing needs --log NAME where there are several logs: {list(config.all_logs)}")
    for name in _chosen(config, args.log):
        ingest(tables, config, run, landings=args.landing, everything=args.all, name=name)


def _chosen(config: Config, names: Sequence[str]) -> Sequence[str]:
    known = list(config.all_logs)
    for name in names:
        if name not in known:
            raise ConfigError(f"--log {name}: no such log; available: {known}{nearest(name, known)}")
    return names or known


def report_stale(tables: "Tables", config: Config, run: "Run") -> None:
    """Say which snapshots were made before the landings of this run came, or came again."""
    from gur_spark.registry.published import published
    from gur_spark.snapshots.stale import commands_for, is_usual, stale_snapshots

    # A table is read whole each time, changed or not.
    tables_read = [name for name, log in config.all_logs.items() if log.source.format in ("delta", "table")]
    landings = [key for key in run.inputs if (key.rpartition(" ")[0] or MAIN) not in tables_read]
    stale = stale_snapshots(tables, config, landings)
    if not stale:
        return
    commands = commands_for(config, stale)
    run.outputs["stale snapshots"] = "; ".join(commands)
    log.warning("ingest: these landings may change %d snapshots; to bring them up to date:", len(stale))
    for command in commands:
        log.warning("  %s", command)
    now = published(tables, config.name)
    if now and now.as_of in [s.as_of for s in stale if is_usual(config, s)]:
        run.outputs["stale published"] = f"{now.model_version} at {now.as_of}"
        log.warning("  among them the published one: then score and publish --as-of %s, too", now.as_of)


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--landing",
        type=cli.day,
        nargs="+",
        default=[],
        metavar="DATE",
        help="replace these landings, changed or not (default: those that are new or changed)",
    )
    parser.add_argument("--log", nargs="+", default=[], metavar="NAME", help="these logs only (default: all of them)")
    parser.add_argument("--all", action="store_true", help="replace every landing, changed or not")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("ingest", (__doc__ or "").splitlines()[0], stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
