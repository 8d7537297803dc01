"""Measure the drift of a date's inputs and embeddings, and their freshness; write the table ``drift`` and a page.

The exit code is 3 where a value is above its alert level, or its warn level with --warn-is-failure.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.extras import report_library
from gur_spark.monitoring.findings import check_ignored, exit_code, summary, to_text, worst
from gur_spark.monitoring.monitor import measured_names, monitor
from gur_spark.monitoring.report import write_page
from gur_spark.snapshots.pivots import newest_manifest
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--as-of", nargs="+", type=cli.day, metavar="DATE", help="default: scoring.as_of of the config")
    parser.add_argument(
        "--against",
        type=cli.day,
        metavar="DATE",
        help="compare inputs with the snapshot of this date; default: with the snapshots that the model was trained on",
    )
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="a version, or newest; default: the published one (the newest before the first publish)",
    )
    parser.add_argument("--inputs-only", action="store_true", help="measure no embeddings, for example before score")
    parser.add_argument("--warn-is-failure", action="store_true", help="exit with 3 on a warning, too")


def check(config: Config) -> None:
    """Refuse unknown names in ``monitor.ignore``: their subjects would be judged."""
    # The columns of a pivot are known when the vocabulary is read.
    if not config.aggregates.pivots:
        check_ignored(config.monitor, measured_names(config, config.manifest()), config.all_logs)


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    # A missing library is reported before anything is measured.
    report_library("matplotlib")
    if config.monitor.ignore:
        check_ignored(config.monitor, measured_names(config, newest_manifest(tables, config)), config.all_logs)
    asked = {"version": args.model, "against": args.against, "inputs_only": args.inputs_only}
    for as_of in cli.scored_dates(config.scoring, args.as_of):
        drift = monitor(tables, config, as_of, run.id, **asked)
        run.add(Account(inputs=dict(drift.inputs), counts=drift.counts))
        run.exit_code = max(run.exit_code, exit_code(worst(drift.findings), args.warn_is_failure))
        page = run.outputs[f"page {as_of}"] = write_page(tables, config.name, drift)
        print(f"{config.name}, {as_of}: {summary(drift.findings)}\n{to_text(drift.findings)}\npage: {page}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("monitor", (__doc__ or "").splitlines()[0], stage, argv, options, check)


if __name__ == "__main__":
    sys.exit(main())
