"""Turn landed raw files into typed, deduplicated events; reject bad rows into quarantine."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gur_spark import cli
from gur_spark.config import Config

if TYPE_CHECKING:
    from gur_spark.runs import Run
    from gur_spark.tables import Tables

log = logging.getLogger("gur_spark")


def stage(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    from gur_spark.events.ingest import ingest

    ingest(tables, config, run, landings=args.landing, everything=args.all)
    report_stale(tables, config, run)


def report_stale(tables: "Tables", config: Config, run: "Run") -> None:
    """Say which snapshots were made before the landings of this run came, or came again."""
    from gur_spark.publishing import published
    from gur_spark.snapshots import stale_snapshots

    stale = sorted({s.as_of for s in stale_snapshots(tables, config, run.inputs)})
    if not stale:
        return
    now = published(tables, config)
    dates = " ".join(map(str, stale))
    run.outputs["stale snapshots"] = dates
    if now and now.as_of in stale:
        run.outputs["stale published"] = f"{now.model_version} at {now.as_of}"
    log.warning(
        "ingest: these landings may change %d snapshots%s; to bring them up to date: aggregate --as-of %s",
        len(stale),
        f", among them the published one of {now.as_of}" if now and now.as_of in stale else "",
        dates,
    )


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
