"""Follow the landings: ingest each as it comes, and embed the users it touches, into the table embeddings_now."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.events.ingest import ingest
from gur_spark.serving.live import refresh
from gur_spark.serving.streaming import call_with_new_files, check_streaming, streamed_logs
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run, record


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="take up what has come and end, for a scheduler")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between two looks for files; default: %(default)s"
    )


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    step = partial(take_up, tables, config, cli.parameters(config.name, args))
    call_with_new_files(tables, config, step, args.once, args.every)


def take_up(tables: Tables, config: Config, parameters: dict[str, str]) -> None:
    """One micro-batch, whose two halves each leave a row in ``runs``."""
    with record(tables, "ingest", parameters) as run:
        for name in streamed_logs(config.all_logs):
            run.add(ingest(tables, config, run.id, name=name))
    with record(tables, "stream", parameters) as run:
        run.add(refresh(tables, config, run.id))


def main(argv: Sequence[str] | None = None) -> int:
    # It may never end: each micro-batch has rows in ``runs``, the job itself has none.
    return cli.main("stream", __doc__ or "", stage, argv, options, check_streaming, recorded=False)


if __name__ == "__main__":
    sys.exit(main())
