"""Augmentations: other views of a training row's user, which the loss ``contrastive`` tells from views of other users.

The setting ``model.contrastive.views`` chooses them. ``dates`` pairs a row with the user's row of the next training
date (a row of the last date, with the one before). ``halves`` adds two more rows, made of two disjoint halves of the
user's events, by a checksum of user and moment. A view has the columns that a model takes, named ``view1_...`` and
``view2_...``.
"""

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.batches.pair_columns import VIEWS, view_column
from gur_spark.errors import TrainingError
from gur_spark.events.vocabulary import encode
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.spark.derived import add_derived
from gur_spark.features.spark.selection import attribute_rows, event_rows, snapshot_events
from gur_spark.features.spark.writer import write_aggregates
from gur_spark.models.gur.settings import GurModel
from gur_spark.snapshots.inputs import SnapshotInputs
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.paths import read_parquet


def check_views(model: GurModel, cutoff: date | None, trained_on: Sequence[date]) -> None:
    """Check that there are views to pair, and that none holds events that training must not see.

    Raises:
        TrainingError: a date is after the cutoff of training, or views of several dates are asked for and there is one.
    """
    dates = sorted(set(trained_on))
    if cutoff and dates[-1] > cutoff:
        raise TrainingError(
            f"the snapshot of {dates[-1]} holds events after the cutoff of training, {cutoff} (the first date of "
            f"scoring and evaluation, or training.cutoff); expected dates up to {cutoff}"
        )
    if model.contrastive.views == "dates" and len(dates) < 2:
        raise TrainingError(
            f"loss 'contrastive' pairs a user's rows of two dates, and {dates[0]} is the only one: name another one in "
            "training.as_of, or set model.contrastive.views to 'halves'"
        )


def partner(snapshot: Snapshot, snapshots: Sequence[Snapshot]) -> Snapshot:
    """Choose the snapshot of the next date; for the last date, that of the date before."""
    ordered = sorted(snapshots, key=lambda s: s.as_of)
    later = [s for s in ordered if s.as_of > snapshot.as_of]
    return later[0] if later else [s for s in ordered if s.as_of < snapshot.as_of][-1]


def of_another_date(tables: Tables, other: Snapshot) -> list[DataFrame]:
    """Read the rows of another snapshot as views: one row per user_id."""
    return [_view(read_parquet(tables.spark, other.data), 1, other.manifest(Manifest))]


def of_halves(tables: Tables, inputs: SnapshotInputs, snapshot: Snapshot, work: str) -> list[DataFrame]:
    """Make two views of disjoint halves of a snapshot's events, one row per user_id with events in the half.

    Both have the user's attributes.

    Raises:
        TrainingError: nobody has an event in a half.
    """
    manifest, sizes, known = inputs.manifest, inputs.vocabulary.sizes, {snapshot.as_of: snapshot.known_at}
    events = inputs.events(tables)
    inside = snapshot_events(event_rows(events, manifest), known, manifest.reach)
    attributes = inputs.encoded_attributes(snapshot_events(attribute_rows(events, manifest), known, None))
    oldest = inside.agg(F.min(F.to_date("event_time"))).collect()[0][0] if manifest.reach is None else None
    made = []
    for number in VIEWS:
        part = encode(add_derived(inside.where(half() == number), manifest), inputs.vocabulary, manifest.categorical)
        folder = storage.join(work, f"half{number}")
        written = write_aggregates(
            part, manifest, sizes, known, {snapshot.as_of: folder}, oldest=oldest, attributes=attributes
        )
        if not written[snapshot.as_of].rows:
            raise TrainingError(f"a half of the events before {snapshot.as_of} is empty: there are too few for views")
        made.append(_view(read_parquet(tables.spark, storage.join(folder, "data")), number, manifest))
    return made


def half() -> Column:
    """Number the half of an event, 1 or 2. Events of one moment stay together."""
    moment = F.concat_ws(" ", F.col("user_id").cast("STRING"), F.unix_micros("event_time").cast("STRING"))
    # A CRC is linear: its lowest bit would follow the digits of the time.
    return F.when(F.substring(F.md5(moment.cast("BINARY")), 1, 1) < "8", 1).otherwise(2)


def _view(rows: DataFrame, number: int, manifest: Manifest) -> DataFrame:
    return rows.select("user_id", *[F.col(name).alias(view_column(number, name)) for name in manifest.inputs])
