"""CoLES on our loader beside CoLES on pytorch-lifestream's own: data, an epoch, and the embeddings of all users.

    python -m benchmarks.encoders --json OUT

Both sides read the same Parquet files, 20,000 users by default, once with 100 events each and once with lognormal
lengths of median 60, and train the same module (GRU 120) on slices by the same rule (five of 25 to 200 events) in
batches of 64 users. Theirs: ``ParquetDataset``, ``ColesIterableDataset``, ``collate_feature_dict``,
``HardNegativePairSelector`` and ``InferenceModule``. Ours: the direct loader, four length buckets, and ``cdist`` for
hard negatives. Seconds are of CPU, with one thread; ratios are ours over theirs, of one run. ``plain_embed`` is their
loader with a loop of one's own in the place of ``InferenceModule``, which makes a data frame of every batch. The
embeddings of both sides are compared.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf
from ptls.data_load.datasets import ParquetDataset, ParquetFiles
from ptls.data_load.utils import collate_feature_dict
from ptls.frames.coles import CoLESModule
from ptls.frames.coles.coles_dataset import ColesIterableDataset
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.frames.inference_module import InferenceModule
from ptls.nn import RnnSeqEncoder, TrxEncoder
from ptls.nn.trx_encoder.scalers import IdentityScaler
from torch import Tensor
from torch.utils.data import DataLoader

from gur_spark.batches.sequence_streams import Side
from gur_spark.batches.sequences import TIMES, SequenceLayout
from gur_spark.config.file import base_file
from gur_spark.config.training import Training
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import NumericField, SequenceManifest
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.declare.spec import Window
from gur_spark.models.lifestream.encoder import NUMBERS, SequenceEncoder
from gur_spark.models.lifestream.learner import ColesLearner
from gur_spark.models.lifestream.scorer import scorer_of
from gur_spark.models.lifestream.settings import ColesModel, Slices
from gur_spark.models.lifestream.train import standardise
from gur_spark.schema import FIRST_VALUE_ID, MISSING_ID, VALUE_ID
from gur_spark.snapshots.files import row_groups

VALUES = {"mcc": 300, "channel": 6, "day_part": 12}
SIZES = {field: values + FIRST_VALUE_ID for field, values in VALUES.items()}
WINDOW_DAYS = 180
AS_OF = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp())
DAY = 86_400

BATCH_USERS = 64
SLICES = Slices(count=5, min=25, max=200)
MODEL = ColesModel(
    latent_dim=120, slices=SLICES, last_slice_share=0.0, recency=False, event_dropout=0.0, embedding_noise=0.0
)
FILES, GROUP_ROWS, SCORED_ROWS = 4, 4096, 4096
"""Files of a snapshot, users of a row group, and users that are scored at a time."""

GOALS = {
    "fixed": {"data_ratio": 0.1, "epoch_ratio": 0.7, "embed_ratio": 0.2},
    "lognormal": {"data_ratio": 0.1, "epoch_ratio": 0.45, "embed_ratio": 0.2},
}

Lengths = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def fixed(users: int, generator: np.random.Generator) -> Lengths:
    return np.full(users, 100)


def lognormal(users: int, generator: np.random.Generator) -> Lengths:
    return np.clip(generator.lognormal(np.log(60), 1.0, users), 1, 1000).astype(np.int64)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--json", metavar="OUT", help="also write the result to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    measured = {draw.__name__: measure(draw, args.users) for draw in (fixed, lognormal)}
    result = {"coles": measured, "users": args.users}
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    for name, goals in GOALS.items():
        for ratio, goal in goals.items():
            reached = "reached" if measured[name][ratio] <= goal else "MISSED"
            print(f"{name} {ratio} {measured[name][ratio]:.3f}: goal {goal} {reached}")
    return 0 if all(found["equal"] for found in measured.values()) else 1


def measure(draw: Callable[[int, np.random.Generator], Lengths], users: int) -> dict[str, Any]:
    """Seconds of both sides, their ratios, and whether both give the same embeddings."""
    seconds: dict[str, dict[str, float]] = {}
    vectors = []
    with tempfile.TemporaryDirectory() as folder:
        make_snapshot(Path(folder), draw(users, np.random.default_rng(0)))
        for side in (Theirs(folder), Ours(folder)):
            name = type(side).__name__.lower()
            seconds[name] = {}
            works = [side.data, side.embed, side.epoch]
            for work in works + ([side.plain_embed] if isinstance(side, Theirs) else []):
                clock = time.process_time()
                made = work()
                seconds[name][work.__name__] = time.process_time() - clock
                print(f"{draw.__name__} {name} {work.__name__}: {seconds[name][work.__name__]:.2f} s", flush=True)
                if isinstance(made, np.ndarray):
                    vectors.append(made)
    difference = float(np.abs(vectors[0] - vectors[1]).max())
    return {
        **{f"{work}_ratio": seconds["ours"][work] / seconds["theirs"][work] for work in seconds["ours"]},
        "plain_embed_ratio": seconds["ours"]["embed"] / seconds["theirs"]["plain_embed"],
        "seconds": seconds,
        "largest_difference": difference,
        "equal": difference < 1e-5,
    }


class Ours:
    """The direct loader and its encoder."""

    def __init__(self, folder: str) -> None:
        self._side, self._layout = everyone(folder), SequenceLayout.of(manifest(), SIZES)
        self.module = new_module(self._side, self._layout)
        training = Training(**{**OmegaConf.load(base_file()).training, "batch_size": BATCH_USERS})
        self._learner = ColesLearner(
            module=self.module, layout=self._layout, model=MODEL, training=training, sides=(self._side, self._side)
        )

    def data(self) -> int:
        """Batches of an epoch, without a model."""
        return sum(len(batch) for batch in self._learner.batches(0, (0, 1)))

    def epoch(self) -> float:
        """An epoch of training; returns the last loss."""
        optimizer, _ = self._learner.optimizer(self._learner.training)
        self.module.train().requires_grad_(True)
        return train_on(self._learner.batches(1, (0, 1)), partial(self._learner.loss, epoch=1), optimizer)

    def embed(self) -> Vectors:
        """Embeddings of all users in the order of user_id."""
        scorer = scorer_of(self.module, self._layout)
        made = [
            scorer.score(rows)["embeddings"]
            for group in self._side.groups
            for rows in group.read(scorer.columns, SCORED_ROWS)
        ]
        return by_user([(m["user_id"].to_numpy(), m["embedding"].values.to_numpy().reshape(len(m), -1)) for m in made])


class Theirs:
    """pytorch-lifestream's loader, module, and pair selector, with the same weights and inputs."""

    def __init__(self, folder: str) -> None:
        layout = SequenceLayout.of(manifest(), SIZES)
        weights = new_module(everyone(folder), layout).sequence
        self._encoder = library_encoder(weights)
        self.module = CoLESModule(self._encoder, optimizer_partial=object(), lr_scheduler_partial=object())
        self._folder = str(Path(folder) / "data")

    def _batches(self) -> Iterator[Any]:
        files = ParquetDataset(ParquetFiles(self._folder), shuffle_files=True)
        slices = ColesIterableDataset(files, SampleSlices(SLICES.count, SLICES.min, SLICES.max))
        return iter(DataLoader(slices, BATCH_USERS, collate_fn=slices.collate_fn))

    def data(self) -> int:
        return sum(len(labels) // SLICES.count for _, labels in self._batches())

    def epoch(self) -> float:
        self.module.train()
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=0.001, weight_decay=0.0, fused=True)
        return train_on(self._batches(), self._loss, optimizer)

    def _loss(self, batch: Any) -> Tensor:
        loss: Tensor = self.module._loss(*self.module.shared_step(*batch)) / BATCH_USERS
        return loss

    @torch.inference_mode()
    def embed(self) -> Vectors:
        """As the library has it: a data frame with a column per number, one row per user."""
        module = InferenceModule(self._encoder.eval(), model_out_name="embedding")
        frame = pd.concat([module(batch) for batch in self._scored()])
        columns = [name for name in frame.columns if name.startswith("embedding_")]
        return by_user([(frame["user_id"].to_numpy(), frame[columns].to_numpy())])

    @torch.inference_mode()
    def plain_embed(self) -> None:
        self._encoder.eval()
        by_user([(batch.payload["user_id"].numpy(), self._encoder(batch).numpy()) for batch in self._scored()])

    def _scored(self) -> Iterator[Any]:
        files = ParquetDataset(ParquetFiles(self._folder))
        return iter(DataLoader(files, BATCH_USERS, collate_fn=collate_feature_dict))


def train_on(batches: Any, loss_of: Callable[[Any], Tensor], optimizer: torch.optim.Optimizer) -> float:
    last = 0.0
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = float(loss.detach())
    return last


def by_user(made: list[tuple[Lengths, Vectors]]) -> Vectors:
    users, vectors = (np.concatenate(column) for column in zip(*made, strict=True))
    ordered: Vectors = vectors[np.argsort(users)]
    return ordered


def everyone(folder: str) -> Side:
    """All users of a snapshot as one side."""
    groups = row_groups(folder)
    return Side(groups=groups, rows=[group.rows for group in groups], keep=lambda users: np.ones(len(users), bool))


def manifest() -> SequenceManifest:
    numbers = [NumericField(name="amount", step=Decimal("0.01"), transform="signed_log1p")]
    return sequence_manifest(make_manifest("long", (WINDOW_DAYS,), numbers, tuple(VALUES)), Window(days=WINDOW_DAYS))


def new_module(side: Side, layout: SequenceLayout) -> SequenceEncoder:
    torch.manual_seed(0)
    module = SequenceEncoder(layout, MODEL)
    standardise(module, side, layout, SLICES.min)
    return module


class Standardised(IdentityScaler):  # type: ignore[misc]
    """Numbers of a padded column as a user of the library would compute them, less their mean, over their deviation."""

    def __init__(self, column: str, numbers: Callable[[Tensor], Tensor], mean_D: Tensor, std_D: Tensor) -> None:
        super().__init__(column)
        self._numbers, self._mean_D, self._std_D = numbers, mean_D, std_D

    def forward(self, column_BT: Tensor) -> Tensor:
        """(B, T) to (B, T, D)."""
        return (self._numbers(column_BT) - self._mean_D) / self._std_D

    @property
    def output_size(self) -> int:
        return len(self._mean_D)


def times(time_BT: Tensor) -> Tensor:
    """The numbers of a time, (B, T, 6)."""
    age_BT = ((AS_OF - time_BT).double() / DAY).log1p()
    gap_BT = (torch.diff(time_BT, prepend=time_BT[:, :1]).double() / DAY).clip(0).log1p()
    hour_BT = time_BT // 3600 % (7 * 24)
    circles = [f(2 * torch.pi * hour_BT / period) for period in (24, 7 * 24) for f in (torch.sin, torch.cos)]
    return torch.stack([age_BT.float(), gap_BT.float(), *circles], dim=2)


def amount(amount_BT: Tensor) -> Tensor:
    """The number as it is, (B, T, 1)."""
    return amount_BT.float().unsqueeze(2)


def missing(flag_BT: Tensor) -> Tensor:
    """Whether the number is missing, (B, T, 1)."""
    return (flag_BT == MISSING_ID).float().unsqueeze(2)


def library_encoder(ours: RnnSeqEncoder) -> RnnSeqEncoder:
    """The same weights and inputs for the library's padded columns."""
    scaler = ours.trx_encoder.custom_embeddings[NUMBERS]
    columns = {
        "event_time": times,
        "amount": lambda amount_BT: amount_BT.float().unsqueeze(2),
        "amount_missing": missing,
    }
    numbers, first = {}, 0
    for column, compute in columns.items():
        last = first + (len(TIMES) if column == "event_time" else 1)
        numbers[column] = Standardised(column, compute, scaler.mean_D[first:last], scaler.std_D[first:last])
        first = last
    tables = {
        name: {"in": table.num_embeddings, "out": table.embedding_dim}
        for name, table in ours.trx_encoder.embeddings.items()
    }
    made = RnnSeqEncoder(
        TrxEncoder(tables, numeric_values=numbers, use_batch_norm=False),
        hidden_size=MODEL.latent_dim,
        type=MODEL.encoder,
    )
    made.trx_encoder.embeddings.load_state_dict(ours.trx_encoder.embeddings.state_dict())
    made.seq_encoder.load_state_dict(ours.seq_encoder.state_dict())
    return made


def make_snapshot(folder: Path, lengths: Lengths) -> None:
    """Write random sequences in the form of the job ``sequences``."""
    (folder / "data").mkdir(parents=True)
    for number, users in enumerate(np.array_split(np.arange(len(lengths)), FILES)):
        table = sequences(users, lengths[users], np.random.default_rng(number))
        pq.write_table(table, folder / "data" / f"part-{number:05d}.parquet", row_group_size=GROUP_ROWS)


def sequences(users: Lengths, lengths: Lengths, generator: np.random.Generator) -> pa.Table:
    """One row per user, events at random moments of the window."""
    events = int(lengths.sum())
    age = generator.integers(1, WINDOW_DAYS * DAY, events)
    order = np.lexsort((-age, np.repeat(np.arange(len(users)), lengths)))
    columns: dict[str, Any] = {"event_time": AS_OF - age[order]}
    for field, size in SIZES.items():
        ids = FIRST_VALUE_ID + np.minimum(generator.zipf(1.3, events) - 1, size - 1 - FIRST_VALUE_ID)
        columns[field] = ids.astype(np.int32)
    columns["amount"] = np.log1p(np.abs(generator.normal(50, 20, events)))
    columns["amount_missing"] = np.full(events, VALUE_ID, dtype=np.int32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}
    return pa.table({"user_id": users, "as_of": np.full(len(users), AS_OF), **lists})


if __name__ == "__main__":
    sys.exit(main())
