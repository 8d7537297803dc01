"""Evaluate embeddings beside what else can be made of the same users: a table, a page, JSON and a picture."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
from pyspark.sql import DataFrame

from gur_spark import cli, storage
from gur_spark.arrays import Array
from gur_spark.config.evaluation import Evaluation, Volume
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, EvaluationError, SnapshotError
from gur_spark.evaluate import labels
from gur_spark.evaluate.baseline_inputs import sequence_folders
from gur_spark.evaluate.features import COLES, HAND_MADE
from gur_spark.evaluate.page import to_html
from gur_spark.evaluate.plots import draw
from gur_spark.evaluate.probe import Population, evaluate
from gur_spark.evaluate.report import Report
from gur_spark.evaluate.sequence_baselines import Sequences, coles, hand_made
from gur_spark.registry.artefact import LoadedModel, load_model
from gur_spark.registry.known import embeddings_name, find_model
from gur_spark.serving.lifecycle import gate_decisions, shared_spaces
from gur_spark.serving.publishing import read_embeddings
from gur_spark.serving.workers import check_fit
from gur_spark.snapshots.visible import Snapshot, find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    default = "several are asked together; default: evaluation.as_of, else the last date of scoring.as_of"
    parser.add_argument("--as-of", type=cli.day, nargs="+", metavar="DATE", help=default)
    parser.add_argument(
        "--model", default="published", metavar="VERSION", help="a version, or newest; default: the published one"
    )
    parser.add_argument(
        "--seeds", type=cli.positive, metavar="NUMBER", help="splits of the users; default: evaluation.seeds"
    )
    seconds = "train CoLES for so long and show it beside; default: evaluation.coles_seconds (0: not)"
    parser.add_argument("--coles-seconds", type=cli.positive, metavar="SECONDS", help=seconds)


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = sorted(set(args.as_of or config.evaluation.as_of or sorted(config.scoring.as_of)[-1:]))
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or evaluation.as_of in the config")
    given = {"seeds": args.seeds, "coles_seconds": args.coles_seconds}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = Evaluation.model_validate(config.evaluation.model_dump() | changes)
    config = config.model_copy(update={"evaluation": settings})
    version = embeddings_name(tables, config, args.model)
    report = evaluate_embeddings(tables, config, dates, version, run)
    print(report.to_text())


def evaluate_embeddings(tables: Tables, config: Config, dates: Sequence[date], version: str, run: Run) -> Report:
    """Make the report of one model version at one date, or at several together, and write it below ``reports``.

    Raises:
        TableError: there are no such embeddings.
        EvaluationError: a future is not complete, or a label cannot be used.
        SnapshotError: the snapshot of a date is missing.
        ModelError: the model is missing, or a snapshot is no longer one that it can read.
    """
    asked = ask(tables, config, dates, version)
    task, label = first_classes(config.evaluation, asked.labels)
    report = evaluate(
        asked.populations, config.evaluation,
        pipeline=config.name, notes=asked.notes, left_out=asked.left_out,
        spaces=shared_spaces(tables, config, asked.version, dates[-1], task, label),
        decisions=gate_decisions(tables, asked.version),
    )  # fmt: skip
    report = replace(report, model_version=asked.version)
    _write(tables, report, run)
    paths = [population.snapshot for population in asked.populations]
    run.inputs |= {"snapshot": " ".join(paths), "model": asked.populations[-1].model.version}
    run.counts |= {"users": report.users, **{f"{task.name} test users": task.test_users for task in report.tasks}}
    return report


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report is made of."""

    version: str
    populations: list[Population]
    labels: list[DataFrame]
    """Of the newest date, of each task and label table."""
    notes: list[str]
    left_out: list[str]


def ask(tables: Tables, config: Config, dates: Sequence[date], version: str) -> Asked:
    """The embedded users of each date with their answers and every baseline; raises as ``evaluate_embeddings``."""
    first = read_embeddings(tables.spark, config, version=version, as_of=dates[0])
    # read_embeddings never gives an empty frame, so there is a first row, with the version behind "published".
    model_version = first.select("model_version").head(1)[0][0]
    # By that name: a publish between two reads must not mix versions.
    embeddings = [read_embeddings(tables.spark, config, version=model_version, as_of=as_of) for as_of in dates]
    model = load_model(find_model(tables, config, model_version).path)
    snapshots = [find_snapshot(tables, config, as_of) for as_of in dates]
    for snapshot in snapshots:
        check_fit(model, snapshot)
        check_unseen(model, model_version, snapshot.as_of)
    settings = config.evaluation
    answers, notes = [], []
    made: list[DataFrame] = []
    for as_of, frame in zip(dates, embeddings, strict=True):
        made, told = labels.make_labels(tables, config, frame.select("user_id", "events"), as_of)
        answers.append(labels.answers(frame, made, settings.max_users, settings.seed).toArrow())
        users = frame.count()
        if users > settings.max_users:
            told.append(f"a sample of {settings.max_users:,} of {users:,} users (evaluation.max_users)")
        notes += told if len(dates) == 1 else [f"{as_of}: {note}" for note in told]
    more, left_out, told = baselines(tables, config, snapshots, answers)
    populations = [
        Population(as_of=snapshot.as_of, answers=known, snapshot=snapshot.path, model=model, more=others)
        for snapshot, known, others in zip(snapshots, answers, more, strict=True)
    ]
    return Asked(version=model_version, populations=populations, labels=made, notes=[*notes, *told], left_out=left_out)


def check_unseen(model: LoadedModel, name: str, as_of: date) -> None:
    """Raises EvaluationError where the model has seen what follows a date."""
    seen = model.card.seen_until
    if seen and as_of < date.fromisoformat(seen):
        raise EvaluationError(
            f"{name} was trained on events up to {seen}: at {as_of} it would be judged by what it has seen; "
            f"evaluate it from {seen} on, or train it on dates, and what follows them, up to {as_of}"
        )


def folder_name(dates: Sequence[str]) -> str:
    """Of a report on one date, or on several: the first, the last, and how many where there are more."""
    if len(dates) == 1:
        return dates[0]
    return f"{dates[0]}_to_{dates[-1]}" + (f"_{len(dates)}_dates" if len(dates) > 2 else "")


def first_classes(settings: Evaluation, made: Sequence[DataFrame]) -> tuple[str | None, DataFrame | None]:
    """The first task that asks for a class, by which consumers' loss is measured, and its labels among those made."""
    for asked, frame in zip([*settings.tasks, *settings.labels], made, strict=True):
        if not isinstance(asked, Volume):
            return asked.name, frame.withColumnRenamed(asked.name, "label")
    return None, None


def baselines(
    tables: Tables, config: Config, snapshots: Sequence[Snapshot], answers: Sequence[pa.Table]
) -> tuple[list[dict[str, Array]], list[str], list[str]]:
    """pytorch-lifestream's, for the users of each date's ``answers``: by name, what is left out and why, how CoLES was
    trained."""
    settings = config.evaluation
    made: list[dict[str, Array]] = [{} for _ in answers]
    left_out: list[str] = []
    told: list[str] = []
    wanted = [*([HAND_MADE] if settings.hand_made else []), *([COLES] if settings.coles_seconds else [])]
    if not settings.hand_made:
        left_out.append(f"{HAND_MADE} (evaluation.hand_made is off)")
    if not settings.coles_seconds:
        left_out.append(f"{COLES} (evaluation.coles_seconds is 0; --coles-seconds 60 trains it for a minute)")
    if not wanted:
        return made, left_out, told
    users, width = [one.column("user_id").combine_chunks() for one in answers], len(answers[0].column("embedding")[0])
    try:
        with sequence_folders(tables, config, snapshots) as folders:
            asked = list(zip(map(Sequences.at, folders.asked), users, strict=True))
            if HAND_MADE in wanted:
                found = [hand_made(*one) for one in asked]
                made = [others | {HAND_MADE: x} for others, x in zip(made, found, strict=True)]
            if COLES in wanted:
                trained_on = Sequences.at(folders.trained_on)
                found, said = coles(trained_on, asked, width, settings.coles_seconds, settings.seed)
                made = [others | {COLES: x} for others, x in zip(made, found, strict=True)]
                told.append(said)
    except (EvaluationError, SnapshotError, ConfigError) as error:
        # A report without them is one; that they cannot be made of this log is said in it.
        left_out += [f"{name} ({error})" for name in wanted if name not in made[0]]
    return made, left_out, told


def _write(tables: Tables, report: Report, run: Run) -> None:
    folder = tables.folder("reports", report.model_version, folder_name(report.dates))
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
