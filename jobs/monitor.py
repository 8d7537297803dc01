"""Measure the drift of a date's inputs and embeddings, and their freshness; write the table ``drift`` and a page.

The exit code is 3 where a value is above its alert level, or its warn level with --warn-is-failure.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli, storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, nearest
from gur_spark.extras import report_library
from gur_spark.monitoring.drift import Drift
from gur_spark.monitoring.findings import Status, summary, to_text, worst
from gur_spark.monitoring.monitor import history, monitor, names_of_ids
from gur_spark.monitoring.page import shown_distributions, to_html
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run

ABOVE_ITS_LEVEL = 3
"""Exit code of a run that succeeded and found drift."""

OTHER_SUBJECTS = ("users", "embedding", "snapshots", "embeddings")
"""Subjects of measurements that are neither columns nor logs."""


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
    """Refuse unknown names in ``monitor.ignore``: their subjects would be judged.

    Raises:
        ConfigError: the message has the nearest name.
    """
    columns = [column.name for column in config.manifest().columns]
    known = [*columns, *(f"log {name}" for name in config.all_logs), *OTHER_SUBJECTS]
    for name in config.monitor.ignore:
        if name not in known:
            raise ConfigError(
                f"monitor.ignore: '{name}' is not measured; expected a column of the aggregates or one of "
                f"{known[len(columns) :]}{nearest(name, known)}"
            )


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = args.as_of or config.scoring.as_of
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or scoring.as_of in the config")
    # A missing library is reported before anything is measured.
    report_library("matplotlib")
    for as_of in dates:
        drift = monitor(
            tables, config, as_of, run, version=args.model, against=args.against, inputs_only=args.inputs_only
        )
        print(f"{config.name}, {as_of}: {summary(drift.findings)}\n{to_text(drift.findings)}")
        _write_page(tables, config, drift, run)
        run.exit_code = max(run.exit_code, exit_code(worst(drift.findings), args.warn_is_failure))
        for status in ("alert", "warn", "ok"):
            run.counts[f"{status} {as_of}"] = sum(finding.status == status for finding in drift.findings)


def exit_code(status: Status, warn_is_failure: bool) -> int:
    """Exit code for a scheduler."""
    above = status == "alert" or (status == "warn" and warn_is_failure)
    return ABOVE_ITS_LEVEL if above else 0


def _write_page(tables: Tables, config: Config, drift: Drift, run: Run) -> None:
    names = names_of_ids(tables, drift.vocabulary_version, shown_distributions(drift))
    page = to_html(config.name, drift, history(tables, drift.as_of), names)
    path = tables.folder("reports", "drift", drift.as_of.isoformat(), "drift.html")
    storage.write_text(path, page)
    run.outputs[f"page {drift.as_of}"] = path
    print(f"page: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("monitor", (__doc__ or "").splitlines()[0], stage, argv, options, check)


if __name__ == "__main__":
    sys.exit(main())
