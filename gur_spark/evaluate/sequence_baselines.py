"""Baselines of pytorch-lifestream, on the sequences that the job ``sequences`` writes: hand-made statistics, and CoLES.

Both see a user's events before ``as_of``, in the longest window, and nothing else. Needs the extra ``sequences``.
"""

# N = users, H = statistics, L = latent width, T = events of a user

import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gur_spark.arrays import Array
from gur_spark.evaluate.features import COLES
from gur_spark.extras import report_library
from gur_spark.features.declare.manifest import SequenceManifest
from gur_spark.models.kind import VocabularyRef
from gur_spark.models.widths import fastai_width
from gur_spark.schema import UNKNOWN_ID
from gur_spark.snapshots.files import read_manifest, read_vocabulary_ref, row_groups

log = logging.getLogger("gur_spark")

Record = dict[str, Any]
"""Of one user: tensors (T,) by column."""

AGE = "age_days"
"""Days from an event to ``as_of``: without it, nothing tells a sequence that ended long ago from one that goes on."""

MOST_IDS = 50
"""Of a category, in the hand-made statistics: each id costs several columns, those above count as rare."""

BATCH_CELLS = 1 << 23
"""Users times events times ids that the hand-made statistics hold at a time: 32 MB per statistic."""

COLES_USERS = 50_000
"""Whose sequences are held in memory to train on."""

SLICES = {"split_count": 5, "cnt_min": 5, "cnt_max": 150}
"""How many parts of a user's events are pairs of one another, and of how many events."""


@dataclass(frozen=True)
class Sequences:
    """A folder of sequences."""

    folder: str
    manifest: SequenceManifest
    vocabulary: VocabularyRef

    @classmethod
    def at(cls, folder: str) -> "Sequences":
        return cls(folder, read_manifest(folder, SequenceManifest), read_vocabulary_ref(folder))

    @property
    def ids(self) -> dict[str, int]:
        """Greatest id + 1 of each category and of the log; whether a number is missing is no category."""
        logs = {column.name: column.ids for column in self.manifest.columns if column.name == "source" and column.ids}
        return logs | {name: self.vocabulary.sizes[name] for name in self.manifest.categories}

    @property
    def as_of(self) -> date:
        """The date of the rows."""
        first = next(row_groups(self.folder)[0].read(["as_of"], 1))
        return datetime.fromtimestamp(first["as_of"][0].as_py(), UTC).date()

    @property
    def numbers(self) -> dict[str, bool]:
        """The numbers, and whether each is a logarithm already."""
        found = [column for column in self.manifest.columns if column.dtype == "array<double>"]
        return {column.name: column.unit.startswith("signed_log1p") for column in found}

    def records(self, users: pa.Array | None = None) -> Iterator[tuple[int, Record]]:
        """Each user's position among ``users`` (all users: 0) and events; users who are not asked for are left out."""
        columns = ["user_id", "as_of", "event_time", *self.ids, *self.numbers]
        for group in row_groups(self.folder):
            for rows in group.read(columns, 4096):
                yield from _records(rows, users)


def _records(rows: pa.RecordBatch, users: pa.Array | None) -> Iterator[tuple[int, Record]]:
    position = pc.index_in(rows.column("user_id"), users) if users is not None else None
    chosen = rows if position is None else rows.filter(position.is_valid())
    positions = np.zeros(len(rows), dtype=int) if position is None else position.drop_null().to_numpy()
    lists = {name: chosen.column(name) for name in chosen.schema.names if name not in ("user_id", "as_of")}
    flat = {name: torch.from_numpy(values.flatten().to_numpy().copy()) for name, values in lists.items()}
    first = np.concatenate([[0], np.cumsum(lists["event_time"].value_lengths().to_numpy())])
    as_of = chosen.column("as_of").to_numpy()
    flat[AGE] = (torch.from_numpy(np.repeat(as_of, np.diff(first))) - flat["event_time"]) / 86_400
    for row, place in enumerate(positions):
        yield int(place), {name: values[first[row] : first[row + 1]] for name, values in flat.items()}


def _without_rare_ids(placed: tuple[int, Record], names: Sequence[str]) -> tuple[int, Record]:
    place, record = placed
    return place, record | {name: torch.where(record[name] < MOST_IDS, record[name], UNKNOWN_ID) for name in names}


def _batches(placed: Iterable[tuple[int, Record]], cells: int) -> Iterator[tuple[list[int], list[Record]]]:
    """Users one after the other, as many as ``BATCH_CELLS`` allow when each is padded to the longest."""
    positions: list[int] = []
    records: list[Record] = []
    longest = 0
    for position, record in placed:
        longest = max(longest, len(record["event_time"]))
        if records and longest * (len(records) + 1) * cells > BATCH_CELLS:
            yield positions, records
            positions, records, longest = [], [], len(record["event_time"])
        positions.append(position)
        records.append(record)
    if records:
        yield positions, records


def _padded(records: Sequence[Record]) -> Any:
    return report_library("ptls.data_load.utils").collate_feature_dict(records)


def hand_made(sequences: Sequences, users: pa.Array) -> Array:
    """Counts, sums, means and deviations, of each number alone and by category, (N, H), on a logarithmic scale.

    A user without events in the window has 0 everywhere.
    """
    seq_encoder = report_library("ptls.nn").AggFeatureSeqEncoder(
        embeddings={name: {"in": min(ids, MOST_IDS)} for name, ids in sequences.ids.items()},
        numeric_values=dict.fromkeys(sequences.numbers or ["#ones"], "identity"),
        was_logified=False,
    )
    made_NH = np.zeros((len(users), seq_encoder.embedding_size))
    cells = max([1, *(min(ids, MOST_IDS) for ids in sequences.ids.values())])
    common = partial(_without_rare_ids, names=list(sequences.ids))
    with _one_thread(), torch.inference_mode():
        for positions, records in _batches(map(common, sequences.records(users)), cells):
            made_NH[positions] = seq_encoder(_padded(records)).double().numpy()
    return np.asarray(np.sign(made_NH) * np.log1p(np.abs(made_NH)))


def coles(
    trained_on: Sequences, asked: Sequence[tuple[Sequences, pa.Array]], width: int, seconds: int, seed: int
) -> tuple[list[Array], str]:
    """CoLES embeddings of the users of each date, (N, L), and how it was trained; NaN for a user without events.

    The recurrent encoder (GRU), loss, and hard negatives are pytorch-lifestream's own, with Adam at 1e-3; training
    ends after ``seconds``, so its weights depend on the machine.
    """
    records = _training_records(trained_on)
    seen = time.monotonic()
    with _one_thread(), _seeded(seed):
        module = _coles_module(trained_on, width)
        steps = _fit(module, records, seconds)
    said = (
        f"{COLES} trained for {time.monotonic() - seen:.0f} s, {steps:,} steps, on {len(records):,} users' events "
        f"before {trained_on.as_of}"
    )
    log.info(said)
    module.eval()
    return [_coles_embeddings(module, sequences, users, width) for sequences, users in asked], said


def _coles_embeddings(module: Any, sequences: Sequences, users: pa.Array, width: int) -> Array:
    made_NL = np.full((len(users), width), np.nan)
    with _one_thread(), torch.inference_mode():
        for positions, some in _batches(sequences.records(users), 64):
            made_NL[positions] = module(_padded(some)).double().numpy()
    return made_NL


def _training_records(sequences: Sequences) -> list[Record]:
    """Of users with more events than the shortest slice: equal slices teach nothing. All, if hardly anyone has more."""
    users = (record for _, record in sequences.records())
    everyone = list(islice(users, COLES_USERS))
    longer = [record for record in everyone if len(record["event_time"]) > SLICES["cnt_min"]]
    return longer if len(longer) > 1 else everyone


def _coles_module(sequences: Sequences, width: int) -> Any:
    nn = report_library("ptls.nn")
    trx_encoder = nn.TrxEncoder(
        {name: {"in": ids, "out": fastai_width(ids)} for name, ids in sequences.ids.items()},
        numeric_values={AGE: "log", **{name: "identity" if log else "log" for name, log in sequences.numbers.items()}},
    )
    return report_library("ptls.frames.coles").CoLESModule(
        nn.RnnSeqEncoder(trx_encoder, hidden_size=width),
        optimizer_partial=partial(torch.optim.Adam, lr=1e-3),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=1000),
    )


def _fit(module: Any, records: list[Record], seconds: int) -> int:
    """Train for so many seconds; returns the number of steps."""
    pl = report_library("pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    slices = report_library("ptls.frames.coles.split_strategy").SampleSlices(**SLICES)
    data = report_library("ptls.frames.coles").ColesDataset(records, slices)
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, collate_fn=data.collate_fn)
    with warnings.catch_warnings():
        # Of loader workers, of which there are none on purpose, and of lightning's own parts.
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_time=timedelta(seconds=seconds),
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    return int(trainer.global_step)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches are small: where another process has a core, torch's threads wait for one another most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's and numpy's global generators, which pytorch-lifestream draws from, seeded within and as before after."""
    numpys = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)
