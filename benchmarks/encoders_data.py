"""Data of both sides of ``benchmarks.encoders``: sequences of random users, the module and the slices."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.training import AS_OF, NUMERIC, SIZES, WINDOWS, standard_manifest
from gur_spark.batches.sequence_streams import Side
from gur_spark.batches.sequences import DAY, SequenceLayout
from gur_spark.features.declare.manifest import SequenceManifest, missing_column
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.declare.windows import Window
from gur_spark.models.kind import VocabularyRef
from gur_spark.models.lifestream.encoder import SequenceEncoder
from gur_spark.models.lifestream.settings import ColesModel, Slices
from gur_spark.models.lifestream.train import standardise
from gur_spark.schema import FIRST_VALUE_ID, VALUE_ID
from gur_spark.snapshots.files import row_groups, write_description

END = int(datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC).timestamp())
"""Snapshot's date in seconds since 1970."""

VOCABULARY = VocabularyRef(version=1, hash="benchmark", sizes=SIZES)
BATCH_USERS = 64
SLICES = Slices(count=5, min=25, max=200)
MODEL = ColesModel(
    latent_dim=120, slices=SLICES, last_slice_share=0.0, recency=False, event_dropout=0.0, embedding_noise=0.0
)
FILES, GROUP_ROWS = 4, 4096
"""Files of a snapshot, and users of a row group."""

Lengths = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Draw = Callable[[int, np.random.Generator], Lengths]


def fixed(users: int, generator: np.random.Generator) -> Lengths:
    """Lengths of 100 events each."""
    return np.full(users, 100)


def lognormal(users: int, generator: np.random.Generator) -> Lengths:
    """Lengths with median 60 and mean 99, at most 1,000."""
    return np.clip(generator.lognormal(np.log(60), 1.0, users), 1, 1000).astype(np.int64)


def manifest() -> SequenceManifest:
    return sequence_manifest(standard_manifest(), Window(days=WINDOWS[-1]))


def layout() -> SequenceLayout:
    return SequenceLayout.of(manifest(), SIZES)


def everyone(folder: str) -> Side:
    """All users of a snapshot as one side."""
    groups = row_groups(folder)
    return Side(groups=groups, rows=[group.rows for group in groups], keep=lambda users: np.ones(len(users), bool))


def new_module(folder: str) -> SequenceEncoder:
    """The module with the weights of seed 0, standardised by all users."""
    torch.manual_seed(0)
    module = SequenceEncoder(layout(), MODEL)
    standardise(module, everyone(folder), layout(), SLICES.min)
    return module


def make_snapshot(folder: Path, lengths: Lengths) -> None:
    """Write random sequences in the form of the job ``sequences``."""
    (folder / "data").mkdir(parents=True)
    write_description(str(folder), manifest(), VOCABULARY)
    for number, users in enumerate(np.array_split(np.arange(len(lengths)), FILES)):
        table = sequences(users, lengths[users], np.random.default_rng(number))
        pq.write_table(table, folder / "data" / f"part-{number:05d}.parquet", row_group_size=GROUP_ROWS)


def sequences(users: Lengths, lengths: Lengths, generator: np.random.Generator) -> pa.Table:
    """One row per user, events at random moments of the window."""
    events = int(lengths.sum())
    age = generator.integers(1, WINDOWS[-1] * DAY, events)
    order = np.lexsort((-age, np.repeat(np.arange(len(users)), lengths)))
    columns: dict[str, Any] = {"event_time": END - age[order]}
    for field, size in SIZES.items():
        ids = FIRST_VALUE_ID + np.minimum(generator.zipf(1.3, events) - 1, size - 1 - FIRST_VALUE_ID)
        columns[field] = ids.astype(np.int32)
    for number in NUMERIC:
        columns[number] = generator.normal(50, 20, events)
        columns[missing_column(number)] = np.full(events, VALUE_ID, dtype=np.int32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}
    return pa.table({"user_id": users, "as_of": np.full(len(users), END), **lists})
