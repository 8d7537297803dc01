"""The job ``evaluate``: a version's embeddings beside other representations of the same users, as a report."""

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
from gur_spark.errors import EvaluationError, ModelError, nearest
from gur_spark.evaluate import labels
from gur_spark.evaluate.baselines import Representations, sequence_baselines
from gur_spark.evaluate.encoded import encode_users, place
from gur_spark.evaluate.figures import RANDOM
from gur_spark.evaluate.lifecycle import gate_decisions, shared_spaces
from gur_spark.evaluate.page import to_html
from gur_spark.evaluate.plots import draw
from gur_spark.evaluate.probe import Population, evaluate
from gur_spark.evaluate.report import Report
from gur_spark.evaluate.text import to_text
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.kind import Form
from gur_spark.outputs.embeddings import read_embeddings, select_embeddings
from gur_spark.registry.artefact import load_model
from gur_spark.registry.card import seen_until_of
from gur_spark.registry.fit import check_fit
from gur_spark.registry.known import find_model, seen_until
from gur_spark.registry.published import pipelines, published
from gur_spark.snapshots.files import read_manifest
from gur_spark.snapshots.visible import Snapshot
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.paths import read_parquet
from gur_spark.tables.runs import Account, kept_on_failure


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Inputs of a report."""

    version: str
    populations: list[Population]
    labels: list[DataFrame]
    """Labels at the newest date, one frame per task and label table."""
    notes: list[str]
    left_out: list[str]
    about: dict[str, str]
    """Further representation -> its description."""
    account: Account
    """The model and the snapshots, for the run's row."""


def make_report(tables: Tables, config: Config, inputs: ReportInputs) -> Report:
    """Make the report of one model version at one date, or at several together.

    Raises:
        EvaluationError: a label cannot be used.
    """
    task, label = first_classes(config.evaluation, inputs.labels)
    report = evaluate(
        inputs.populations, config.evaluation,
        pipeline=config.name, notes=inputs.notes, left_out=inputs.left_out, about=inputs.about,
        spaces=shared_spaces(tables, config.evaluation, inputs.version, inputs.populations[-1].as_of, task, label),
        decisions=gate_decisions(tables, inputs.version),
    )  # fmt: skip
    return replace(report, model_version=inputs.version)


def write_report(tables: Tables, report: Report) -> dict[str, str]:
    """Write a report below ``reports`` as JSON, text, picture and page; return their paths."""
    folder = tables.folder("reports", report.model_version, folder_name(report.dates))
    contents = {
        "json": report.to_json().encode(),
        "txt": to_text(report).encode(),
        "png": draw(report),
        "html": to_html(report).encode(),
    }
    paths = {kind: storage.join(folder, f"report.{kind}") for kind in contents}
    for kind, content in contents.items():
        storage.write_bytes(paths[kind], content)
    return paths


def folder_name(dates: Sequence[str]) -> str:
    """Name the folder of a report: its date, or the first and last date and their number if there are more."""
    if len(dates) == 1:
        return dates[0]
    return f"{dates[0]}_to_{dates[-1]}" + (f"_{len(dates)}_dates" if len(dates) > 2 else "")


def collect_inputs(tables: Tables, config: Config, dates: Sequence[date], version: str) -> ReportInputs:
    """Collect the embedded users of each date with their answers and every baseline.

    Raises:
        TableError: there are no such embeddings.
        EvaluationError: training saw events of a date, a future is not complete, or a label cannot be used.
        SnapshotError: the snapshot of a date is missing.
        ModelError: the model is missing, or cannot read a snapshot any more.
    """
    account = Account()
    with kept_on_failure(account):
        return _collect(tables, config, dates, version, account)


def _collect(tables: Tables, config: Config, dates: Sequence[date], version: str, account: Account) -> ReportInputs:
    first = read_embeddings(tables.spark, config, version=version, as_of=dates[0])
    # ``read_embeddings`` never gives an empty frame, so the first row tells the version behind "published".
    model_version = first.select("model_version").head(1)[0][0]
    account.inputs["model"] = model_version
    found = find_model(tables, config, model_version)
    model = load_model(found.path)
    reads = {"manifest": model.manifest, "vocabulary": found.vocabulary}
    own = [find_snapshot(tables, config, as_of, model.kind.reads, **reads) for as_of in dates]
    for snapshot in own:
        check_fit(model, snapshot)
        check_unseen(seen_until_of(model.card), model_version, snapshot.as_of)
    reads_windows = model.kind.reads == Form.AGGREGATES
    windows = own if reads_windows else [find_snapshot(tables, config, as_of) for as_of in dates]
    account.inputs.update({f"{s.form} {s.as_of}": s.path for s in (*own, *windows)})
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
    return ReportInputs(
        version=model_version,
        populations=populations,
        labels=made,
        notes=[*notes, *further.notes],
        left_out=further.left_out,
        about=further.about,
        account=account,
    )


def layout_of(tables: Tables, snapshot: Snapshot) -> Layout:
    """Read the layout of an aggregate snapshot."""
    sizes = read_vocabulary(tables, snapshot.vocabulary_version).sizes
    return Layout.of(read_manifest(snapshot.path, Manifest), sizes)


def _answers(
    tables: Tables, config: Config, windows: Sequence[Snapshot], version: str
) -> tuple[list[pa.Table], list[DataFrame], list[str]]:
    """Collect the answers of the embedded users of each date, the labels of the newest date, and notes for the reader.

    Users without a row in the aggregate snapshot, from which raw windows are read, are left out.
    """
    settings, answers, notes = config.evaluation, [], []
    made: list[DataFrame] = []
    following = [*(snapshot.as_of for snapshot in windows[1:]), None]
    for snapshot, until in zip(windows, following, strict=True):
        # Embeddings are read by the version's own name: a publish between two reads must not mix versions.
        embedded = read_embeddings(tables.spark, config, version=version, as_of=snapshot.as_of)
        rows = read_parquet(tables.spark, snapshot.data).select("user_id")
        frame = embedded.join(rows, "user_id", "left_semi")
        made, told = labels.make_labels(tables, config, frame.select("user_id", "events"), snapshot.as_of, until)
        answers.append(labels.answers(frame, made, settings.max_users, settings.seed).toArrow())
        users, everyone = frame.count(), embedded.count()
        if everyone > users:
            told.append(f"{everyone - users:,} embedded users have no row in the aggregates and are left out")
        if users > settings.max_users:
            told.append(f"a sample of {settings.max_users:,} of {users:,} users (evaluation.max_users)")
        notes += told if len(windows) == 1 else [f"{snapshot.as_of}: {note}" for note in told]
    return answers, made, notes


def check_unseen(seen: date, name: str, as_of: date) -> None:
    """Check that the training of a version, which saw events before ``seen``, saw none at or after a date.

    Raises:
        EvaluationError: it did.
    """
    if as_of < seen:
        raise EvaluationError(
            f"{name} was trained on events before {seen}: at {as_of} it would be judged by events of its training; "
            f"evaluate it from {seen} on, or train it on dates, their horizon included, up to {as_of}"
        )


def first_classes(settings: Evaluation, made: Sequence[DataFrame]) -> tuple[str | None, DataFrame | None]:
    """Find the first task with classes, by which the consumers' loss is measured, and its labels."""
    for asked, frame in zip([*settings.tasks, *settings.labels], made, strict=True):
        if not isinstance(asked, Volume):
            return asked.name, frame.withColumnRenamed(asked.name, "label")
    return None, None


def _beside(tables: Tables, config: Config, dates: Sequence[date], users: Sequence[pa.Array]) -> Representations:
    """Read the published embeddings of ``evaluation.beside`` for the users of each date; NaN for a user without one."""
    found = Representations()
    for pipeline in config.evaluation.beside:
        now = published(tables, pipeline)
        if now is None:
            names = pipelines(tables)
            found.left_out.append(
                f"{pipeline} (nothing is published for this pipeline in these tables; pipelines that published: "
                f"{names or 'none'}{nearest(pipeline, names)})"
            )
            continue
        try:
            check_unseen(seen_until(tables, now.model_version), now.model_version, dates[0])
        except (EvaluationError, ModelError) as error:
            found.left_out.append(f"{pipeline} ({error})")
            continue
        made = [_vectors(tables, now.model_version, as_of, some) for as_of, some in zip(dates, users, strict=True)]
        missing = [str(day) for day, vectors in zip(dates, made, strict=True) if not vectors.shape[1]]
        if missing:
            found.left_out.append(
                f"{pipeline} ({now.model_version} was not scored at {', '.join(missing)}; run score --config FILE "
                f"--as-of {' '.join(missing)} with the file of pipeline '{pipeline}')"
            )
            continue
        found.vectors[pipeline] = made
        found.about[pipeline] = f"embeddings of {now.model_version}, published by pipeline {pipeline}"
    return found


def _vectors(tables: Tables, version: str, as_of: date, users: pa.Array) -> Array:
    rows = select_embeddings(tables, version, as_of).select("user_id", "embedding").toArrow()
    return place(rows.column("user_id").combine_chunks(), matrix(rows.column("embedding")), users)
