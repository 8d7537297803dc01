"""Evaluate embeddings beside raw windows, PCA and a random encoder: a table, JSON and a picture."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import cli, storage
from gur_spark.config import Config
from gur_spark.errors import ConfigError, EvaluationError
from gur_spark.evaluate import labels
from gur_spark.evaluate.probe import evaluate
from gur_spark.evaluate.report import Report, draw
from gur_spark.features.narrowing import event_rows
from gur_spark.model_versions import find_model
from gur_spark.publishing import read_embeddings
from gur_spark.registry import load_model
from gur_spark.runs import Run
from gur_spark.scoring import check_fit
from gur_spark.snapshots import find_snapshot
from gur_spark.tables import Tables


def options(parser: ArgumentParser) -> None:
    default = "default: evaluation.as_of, else the last date of scoring.as_of"
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help=default)
    parser.add_argument("--model", default="published", metavar="VERSION", help="default: the published version")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    as_of = args.as_of or config.evaluation.as_of or max(config.scoring.as_of, default=None)
    if as_of is None:
        raise ConfigError("no as-of date: give --as-of DATE, or evaluation.as_of in the config")
    report = evaluate_embeddings(tables, config, as_of, args.model, run)
    print(report.to_text())


def evaluate_embeddings(tables: Tables, config: Config, as_of: date, version: str, run: Run) -> Report:
    """Make the report of one model version at one date and write it below ``reports``.

    Raises:
        TableError: there are no such embeddings.
        EvaluationError: the future is not complete, or a label cannot be used.
        SnapshotError: the snapshot of the date is missing.
        ModelError: the model is missing, or the snapshot is no longer the one it can read.
    """
    embeddings = read_embeddings(tables.spark, config, version=version, as_of=as_of)
    # read_embeddings never gives an empty frame, so there is a first row, with the version behind "published".
    model_version = embeddings.select("model_version").head(1)[0][0]
    model = load_model(find_model(tables, config, model_version).path)
    snapshot = find_snapshot(tables, config, as_of)
    check_fit(model, snapshot)
    seen = model.card.seen_until
    if seen and as_of < date.fromisoformat(seen):
        raise EvaluationError(
            f"{model_version} was trained on what followed until {seen}: at {as_of} it would be judged by what it has "
            f"seen; evaluate it from {seen} on, or train with training.cutoff {as_of}"
        )
    tables_of_labels, notes = _labels(tables, config, embeddings, as_of)
    settings = config.evaluation
    answers = labels.answers(embeddings, tables_of_labels, settings.max_users, settings.seed).toArrow()
    users = embeddings.count()
    if users > settings.max_users:
        notes.append(f"a sample of {settings.max_users:,} of {users:,} users (evaluation.max_users)")
    report = evaluate(answers, snapshot.path, model, settings, pipeline=config.name, as_of=as_of, notes=notes)
    report = replace(report, model_version=model_version)
    _write(tables, report, run)
    run.inputs |= {"snapshot": snapshot.path, "model": model.version}
    run.counts |= {"users": report.users, **{f"{task.name} test users": task.test_users for task in report.tasks}}
    return report


def _labels(tables: Tables, config: Config, embeddings: DataFrame, as_of: date) -> tuple[list[DataFrame], list[str]]:
    """Every label that the config asks for, and what to say about them."""
    made, notes = [], []
    if config.evaluation.churn:
        events = event_rows(tables.read("events", made_by="ingest"), config.manifest())
        horizon = config.evaluation.horizon_days
        labels.check_future(events, as_of, horizon)
        made.append(labels.churn(embeddings.where(F.col("events") > 0), events, as_of, horizon))
        notes.append(f"churned: no event in the {horizon} days from {as_of} on")
    for label in config.evaluation.labels:
        table = labels.read_label(tables.spark, label, config.fields.user_id.type)
        unknown = labels.unknown_users(table, embeddings)
        if unknown:
            notes.append(f"{label.name}: {unknown:,} labelled users have no embedding and are left out")
        made.append(table)
    return made, notes


def _write(tables: Tables, report: Report, run: Run) -> None:
    folder = tables.folder("reports", report.model_version, report.as_of)
    contents = {"json": report.to_json().encode(), "txt": report.to_text().encode(), "png": draw(report)}
    for kind, content in contents.items():
        run.outputs[kind] = storage.join(folder, f"report.{kind}")
        storage.write_bytes(run.outputs[kind], content)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("evaluate", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
