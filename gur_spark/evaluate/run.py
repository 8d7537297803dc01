"""The job ``evaluate``: a published or named version, beside what else can be made of the same users -> a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
from pyspark.sql import DataFrame

from gur_spark import storage
from gur_spark.arrays import Array, matrix
from gur_spark.batches.layout import Layout
from gur_spark.config.evaluation import Evaluation, Volume
from gur_spark.config.pipeline import Config
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import labels
from gur_spark.evaluate.baselines import Representations, sequence_baselines
from gur_spark.evaluate.encoded import encode_users, place
from gur_spark.evaluate.features import RANDOM
from gur_spark.evaluate.lifecycle import gate_decisions, shared_spaces
from gur_spark.evaluate.page import to_html
from gur_spark.evaluate.plots import draw
from gur_spark.evaluate.probe import Population, evaluate
from gur_spark.evaluate.report import Report
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.kind import Form
from gur_spark.outputs.embeddings import read_embeddings, select_embeddings
from gur_spark.registry.artefact import LoadedModel, load_model
from gur_spark.registry.card import seen_until_of
from gur_spark.registry.fit import check_fit
from gur_spark.registry.known import find_model
from gur_spark.registry.published import published
from gur_spark.snapshots.files import read_manifest
from gur_spark.snapshots.visible import Snapshot, find_snapshot
from gur_spark.tables.delta import Tables


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report is made of."""

    version: str
    populations: list[Population]
    labels: list[DataFrame]
    """At the newest date, one frame per task and label table."""
    notes: list[str]
    left_out: list[str]
    about: dict[str, str]
    """Further representations, and what they are."""


def make_report(tables: Tables, config: Config, dates: Sequence[date], version: str) -> Report:
    """The report of one model version at one date, or at several together.

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
        pipeline=config.name, notes=asked.notes, left_out=asked.left_out, about=asked.about,
        spaces=shared_spaces(tables, config, asked.version, dates[-1], task, label),
        decisions=gate_decisions(tables, asked.version),
    )  # fmt: skip
    return replace(report, model_version=asked.version)


def write_report(tables: Tables, report: Report) -> dict[str, str]:
    """Write a report below ``reports`` as JSON, text, picture and page; returns their paths."""
    folder = tables.folder("reports", report.model_version, folder_name(report.dates))
    contents = {
        "json": report.to_json().encode(),
        "txt": report.to_text().encode(),
        "png": draw(report),
        "html": to_html(report).encode(),
    }
    paths = {kind: storage.join(folder, f"report.{kind}") for kind in contents}
    for kind, content in contents.items():
        storage.write_bytes(paths[kind], content)
    return paths


def folder_name(dates: Sequence[str]) -> str:
    """The folder of a report: its date, or the first and last one, and how many where there are more."""
    if len(dates) == 1:
        return dates[0]
    return f"{dates[0]}_to_{dates[-1]}" + (f"_{len(dates)}_dates" if len(dates) > 2 else "")


def ask(tables: Tables, config: Config, dates: Sequence[date], version: str) -> Asked:
    """The embedded users of each date with their answers and every baseline; raises as ``make_report``."""
    first = read_embeddings(tables.spark, config, version=version, as_of=dates[0])
    # read_embeddings never gives an empty frame, so there is a first row, with the version behind "published".
    model_version = first.select("model_version").head(1)[0][0]
    model = load_model(find_model(tables, config, model_version).path)
    own = [find_snapshot(tables, config.aggregates, as_of, form=model.kind.reads) for as_of in dates]
    for snapshot in own:
        check_fit(model, snapshot)
        check_unseen(model, model_version, snapshot.as_of)
    windows = [find_snapshot(tables, config.aggregates, as_of, form=Form.AGGREGATES) for as_of in dates]
    answers, made, notes = _answers(tables, config, windows, model_version)
    users = [one.column("user_id").combine_chunks() for one in answers]
    width = len(answers[0].column("embedding")[0])
    untrained = model.kind.untrained(model.artefact, config.evaluation.seed)
    further = Representations.of(
        {RANDOM: [encode_users(s.path, untrained, some) for s, some in zip(own, users, strict=True)]}
    )
    further = further.with_(sequence_baselines(tables, config, windows, users, width))
    further = further.with_(_beside(tables, config, dates, users))
    populations = [
        Population(
            as_of=snapshot.as_of,
            answers=known,
            model_version=model.version,
            snapshot=snapshot.path,
            layout=layout_of(tables, snapshot),
            more=further.at(number),
        )
        for number, (snapshot, known) in enumerate(zip(windows, answers, strict=True))
    ]
    return Asked(
        version=model_version,
        populations=populations,
        labels=made,
        notes=[*notes, *further.notes],
        left_out=further.left_out,
        about=further.about,
    )


def layout_of(tables: Tables, snapshot: Snapshot) -> Layout:
    """Names and order of the columns of an aggregate snapshot."""
    sizes = read_vocabulary(tables, snapshot.vocabulary_version).sizes
    return Layout.of(read_manifest(snapshot.path, Manifest), sizes)


def _answers(
    tables: Tables, config: Config, windows: Sequence[Snapshot], version: str
) -> tuple[list[pa.Table], list[DataFrame], list[str]]:
    """Answers of the embedded users of each date, the labels of the newest date, and what a reader must know.

    Users without a row in the aggregate snapshot, which raw windows come from, are left out.
    """
    settings, answers, notes = config.evaluation, [], []
    made: list[DataFrame] = []
    for snapshot in windows:
        # By the version's own name: a publish between two reads must not mix versions.
        embedded = read_embeddings(tables.spark, config, version=version, as_of=snapshot.as_of)
        rows = tables.spark.read.parquet(snapshot.data).select("user_id")
        frame = embedded.join(rows, "user_id", "left_semi")
        made, told = labels.make_labels(tables, config, frame.select("user_id", "events"), snapshot.as_of)
        answers.append(labels.answers(frame, made, settings.max_users, settings.seed).toArrow())
        users, everyone = frame.count(), embedded.count()
        if everyone > users:
            told.append(f"{everyone - users:,} embedded users have no row in the aggregates and are left out")
        if users > settings.max_users:
            told.append(f"a sample of {settings.max_users:,} of {users:,} users (evaluation.max_users)")
        notes += told if len(windows) == 1 else [f"{snapshot.as_of}: {note}" for note in told]
    return answers, made, notes


def check_unseen(model: LoadedModel, name: str, as_of: date) -> None:
    """Check that a model has not seen what follows a date.

    Raises:
        EvaluationError: it has.
        ModelError: its card does not tell.
    """
    seen = seen_until_of(model.card)
    if as_of < seen:
        raise EvaluationError(
            f"{name} was trained on events up to {seen}: at {as_of} it would be judged by what it has seen; "
            f"evaluate it from {seen} on, or train it on dates, and what follows them, up to {as_of}"
        )


def first_classes(settings: Evaluation, made: Sequence[DataFrame]) -> tuple[str | None, DataFrame | None]:
    """The first task that asks for a class, by which consumers' loss is measured, and its labels among those made."""
    for asked, frame in zip([*settings.tasks, *settings.labels], made, strict=True):
        if not isinstance(asked, Volume):
            return asked.name, frame.withColumnRenamed(asked.name, "label")
    return None, None


def _beside(tables: Tables, config: Config, dates: Sequence[date], users: Sequence[pa.Array]) -> Representations:
    """The published embeddings of ``evaluation.beside``, for the users of each date; NaN for a user without."""
    found = Representations()
    for pipeline in config.evaluation.beside:
        now = published(tables, pipeline)
        if now is None:
            found.left_out.append(f"{pipeline} (nothing is published for this pipeline in these tables)")
            continue
        model = load_model(find_model(tables, config, now.model_version).path)
        for as_of in dates:
            check_unseen(model, now.model_version, as_of)
        made = [_vectors(tables, now.model_version, as_of, some) for as_of, some in zip(dates, users, strict=True)]
        missing = [str(day) for day, vectors in zip(dates, made, strict=True) if not vectors.shape[1]]
        if missing:
            found.left_out.append(f"{pipeline} ({now.model_version} was not scored at {', '.join(missing)})")
            continue
        found.vectors[pipeline] = made
        found.about[pipeline] = f"embeddings of {now.model_version}, published by pipeline {pipeline}"
    return found


def _vectors(tables: Tables, version: str, as_of: date, users: pa.Array) -> Array:
    rows = select_embeddings(tables, version, as_of).select("user_id", "embedding").toArrow()
    return place(rows.column("user_id").combine_chunks(), matrix(rows.column("embedding")), users)
