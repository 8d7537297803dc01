"""Evaluate embeddings beside what else can be made of the same users: a table, a page, JSON and a picture."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import pyarrow as pa

from gur_spark import cli, storage
from gur_spark.config import Config
from gur_spark.errors import ConfigError, EvaluationError, SnapshotError
from gur_spark.evaluate import labels
from gur_spark.evaluate.baseline_inputs import sequence_folders
from gur_spark.evaluate.features import COLES, HAND_MADE, Array
from gur_spark.evaluate.page import to_html
from gur_spark.evaluate.plots import draw
from gur_spark.evaluate.probe import evaluate
from gur_spark.evaluate.report import Report
from gur_spark.evaluate.sequence_baselines import Sequences, coles, hand_made
from gur_spark.evaluate.settings import Evaluation
from gur_spark.runs import Run
from gur_spark.serving.embedding import check_fit
from gur_spark.serving.publishing import read_embeddings
from gur_spark.snapshots.visible import Snapshot, find_snapshot
from gur_spark.tables import Tables
from gur_spark.versions.known import embeddings_name, find_model
from gur_spark.versions.registry import load_model
from jobs.sequences import positive


def options(parser: ArgumentParser) -> None:
    default = "default: evaluation.as_of, else the last date of scoring.as_of"
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help=default)
    parser.add_argument(
        "--model", default="published", metavar="VERSION", help="a version, or newest; default: the published one"
    )
    parser.add_argument(
        "--seeds", type=positive, metavar="NUMBER", help="splits of the users; default: evaluation.seeds"
    )
    seconds = "train CoLES for so long and show it beside; default: evaluation.coles_seconds (0: not)"
    parser.add_argument("--coles-seconds", type=positive, metavar="SECONDS", help=seconds)


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    as_of = args.as_of or config.evaluation.as_of or max(config.scoring.as_of, default=None)
    if as_of is None:
        raise ConfigError("no as-of date: give --as-of DATE, or evaluation.as_of in the config")
    given = {"seeds": args.seeds, "coles_seconds": args.coles_seconds}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = Evaluation.model_validate(config.evaluation.model_dump() | changes)
    config = config.model_copy(update={"evaluation": settings})
    version = embeddings_name(tables, config, args.model)
    report = evaluate_embeddings(tables, config, as_of, version, run)
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
            f"{model_version} was trained on events up to {seen}: at {as_of} it would be judged by what it has seen; "
            f"evaluate it from {seen} on, or train it on dates, and what follows them, up to {as_of}"
        )
    settings = config.evaluation
    tables_of_labels, notes = labels.make_labels(tables, config, embeddings.select("user_id", "events"), as_of)
    answers = labels.answers(embeddings, tables_of_labels, settings.max_users, settings.seed).toArrow()
    users = embeddings.count()
    if users > settings.max_users:
        notes.append(f"a sample of {settings.max_users:,} of {users:,} users (evaluation.max_users)")
    more, left_out, told = baselines(tables, config, snapshot, answers)
    report = evaluate(
        answers, snapshot.path, model, settings,
        pipeline=config.name, as_of=as_of, notes=[*notes, *told], more=more, left_out=left_out,
    )  # fmt: skip
    report = replace(report, model_version=model_version)
    _write(tables, report, run)
    run.inputs |= {"snapshot": snapshot.path, "model": model.version}
    run.counts |= {"users": report.users, **{f"{task.name} test users": task.test_users for task in report.tasks}}
    return report


def baselines(
    tables: Tables, config: Config, snapshot: Snapshot, answers: pa.Table
) -> tuple[dict[str, Array], list[str], list[str]]:
    """pytorch-lifestream's, for the users of ``answers``: by name, what is left out and why, how CoLES was trained."""
    settings = config.evaluation
    made: dict[str, Array] = {}
    left_out: list[str] = []
    told: list[str] = []
    wanted = [*([HAND_MADE] if settings.hand_made else []), *([COLES] if settings.coles_seconds else [])]
    if not settings.hand_made:
        left_out.append(f"{HAND_MADE} (evaluation.hand_made is off)")
    if not settings.coles_seconds:
        left_out.append(f"{COLES} (evaluation.coles_seconds is 0; --coles-seconds 60 trains it for a minute)")
    if not wanted:
        return made, left_out, told
    users, width = answers.column("user_id").combine_chunks(), len(answers.column("embedding")[0])
    try:
        with sequence_folders(tables, config, snapshot) as folders:
            asked, trained_on = (Sequences.at(folder) for folder in (folders.asked, folders.trained_on))
            if HAND_MADE in wanted:
                made[HAND_MADE] = hand_made(asked, users)
            if COLES in wanted:
                made[COLES], said = coles(trained_on, asked, users, width, settings.coles_seconds, settings.seed)
                told.append(said)
    except (EvaluationError, SnapshotError, ConfigError) as error:
        # A report without them is one; that they cannot be made of this log is said in it.
        left_out += [f"{name} ({error})" for name in wanted if name not in made]
    return made, left_out, told


def _write(tables: Tables, report: Report, run: Run) -> None:
    folder = tables.folder("reports", report.model_version, report.as_of)
    contents = {
        "json": report.to_json().encode(),
        "txt": report.to_text().encode(),
        "png": draw(report),
        "html": to_html(report).encode(),
    }
    for kind, content in contents.items():
        run.outputs[kind] = storage.join(folder, f"report.{kind}")
        storage.write_bytes(run.outputs[kind], content)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("evaluate", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
