"""An epoch of GUR on aggregates, and of the same autoencoder on padded sequences of the same events.

    python -m benchmarks.training_vs_sequences --json OUT

The events of ``benchmarks.training``: about 49 per user in the longest of three windows, or each of
``--events-per-user`` in turn, three categories of 300, 6 and 12 values, two numbers. Ours reads the snapshot, theirs a
flat folder of one row per user through pytorch-lifestream's data set and collation. Both train one network: numbers of
events, means of numbers and of embedded categories, layer by layer of the same widths. Each epoch goes from Parquet to
the last step of Adam, with one batch size and loss, on one thread. Beside them ``with_statistics``, GUR as the pipeline
trains it, with six statistics of a number instead of its mean. All in turn, in one process, medians after a warm-up.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf
from ptls.data_load.datasets import ParquetDataset, ParquetFiles
from ptls.nn import TrxEncoder
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.training import (
    AS_OF,
    EVENTS_PER_USER,
    FILES,
    NUMERIC,
    SIZES,
    WINDOWS,
    Events,
    aggregates,
    standard_manifest,
)
from benchmarks.windows import measured, timed
from gur_spark.batches.layout import Layout
from gur_spark.batches.lifestream import midnight
from gur_spark.batches.streams import stream
from gur_spark.config.file import base_file
from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest
from gur_spark.lifestream import AutoEncoderSeqEncoder, GURIterableDataset, GURModule
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.category_tables import table_width
from gur_spark.models.gur.losses import reconstruction_loss
from gur_spark.models.gur.settings import GurModel


def main() -> int:
    parser = argparse.ArgumentParser(description="training on aggregates against training on sequences")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--events-per-user", type=int, nargs="+", default=[EVENTS_PER_USER], help="one figure of each")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep the data here")
    return measured(measure, parser.parse_args())


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    base = OmegaConf.load(base_file())
    model, training = GurModel(**base.model), Training(**{**base.training, "batch_size": args.batch_size})
    torch.set_num_threads(training.threads)
    settings = {"users": args.users, "batch_size": training.batch_size, "threads": training.threads}
    found = [
        compare(work / str(events), args.users, events, args.runs, model, training) for events in args.events_per_user
    ]
    return {**settings, **(found[0] if len(found) == 1 else {"by_events_per_user": found})}


def compare(
    work: Path, users: int, events_per_user: int, runs: int, model: GurModel, training: Training
) -> dict[str, object]:
    snapshot, sequences = make_data(work, users, events_per_user)
    whole = standard_manifest()
    ours, theirs = Ours(snapshot, means_only(whole), model, training), Theirs(sequences, model, training)
    check_same(ours.module, theirs.module)
    sides = {"ours": ours, "with_statistics": Ours(snapshot, whole, model, training), "theirs": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for attempt in range(runs + 1):
        for name, side in sides.items():
            seconds[name].append(timed(lambda side=side: epoch(side)))  # type: ignore[misc]
        last = {name: round(s[-1], 2) for name, s in seconds.items()}
        print(f"{events_per_user} events per user: {last} s{'' if attempt else ' (warm-up)'}", flush=True)
    medians = {name: median(s[1:]) for name, s in seconds.items()}
    return {
        "events_per_user": events_per_user,
        **{f"{name}_s": value for name, value in medians.items()},
        "ratio": medians["ours"] / medians["theirs"],
        "ratio_with_statistics": medians["with_statistics"] / medians["theirs"],
        "runs": {name: s[1:] for name, s in seconds.items()},
    }


def means_only(manifest: Manifest) -> Manifest:
    """Without the statistics of numbers that a sequence encoder does not have."""
    kept = [c for c in manifest.columns if c.statistic in ("key", "events", "mean") or c.dtype.startswith("array")]
    return manifest.model_copy(update={"columns": tuple(kept)})


def check_same(ours: nn.Module, theirs: nn.Module) -> None:
    """Whether both have weights of the same shapes."""
    shapes = [sorted(tuple(p.shape) for p in module.parameters() if p.requires_grad) for module in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise SystemExit(f"the two sides train different networks: {shapes[0]} and {shapes[1]}")


def epoch(side: "Ours | Theirs") -> None:
    """Forward, backward and Adam on every batch."""
    for loss in side.losses():
        side.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        side.optimizer.step()


class Ours:
    """GUR on aggregates."""

    def __init__(self, snapshot: str, manifest: Manifest, model: GurModel, training: Training) -> None:
        self._snapshot, self._training = snapshot, training
        self._layout = Layout.of(manifest, SIZES)
        self.module = GUR(self._layout, model)
        self.optimizer = adam(self.module, training)

    def losses(self) -> Iterator[Tensor]:
        for batch in stream([self._snapshot], self._layout, self._training.batch_size, shuffle_seed=1):
            yield reconstruction_loss(self.module(batch), batch).mean()


class Theirs:
    """The same autoencoder on padded batches of pytorch-lifestream."""

    def __init__(self, folder: str, model: GurModel, training: Training) -> None:
        tables = {field: {"in": size, "out": table_width(size, model)} for field, size in SIZES.items()}
        numbers = dict.fromkeys(NUMERIC, "identity")
        trx = TrxEncoder(embeddings=tables, numeric_values=numbers, use_batch_norm=False, embeddings_noise=0)
        encoder = AutoEncoderSeqEncoder(trx, latent_dim=model.latent_dim, time_windows=list(WINDOWS))
        self.module = GURModule(encoder, "likelihood")
        data = GURIterableDataset(ParquetDataset(ParquetFiles(folder)))
        self._loader = DataLoader(data, training.batch_size, collate_fn=data.collate_fn)
        self.optimizer = adam(self.module, training)

    def losses(self) -> Iterator[Tensor]:
        for x, y in self._loader:
            made, batch = self.module.shared_step(x, y)
            yield reconstruction_loss(made, batch).mean()


def adam(module: nn.Module, training: Training) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=training.learning_rate, fused=True)


def make_data(work: Path, users: int, events_per_user: int) -> tuple[str, str]:
    """The same random events as a snapshot and as sequences; returns both folders."""
    snapshot, sequences, manifest = work / "snapshot", work / "sequences", standard_manifest()
    for folder in (snapshot / "data", sequences):
        folder.mkdir(parents=True, exist_ok=True)
    (snapshot / "manifest.json").write_text(manifest.to_json())
    for number, part in enumerate(np.array_split(np.arange(users), FILES)):
        events = Events.random(len(part), np.random.default_rng(number), events_per_user)
        name = f"part-{number:05d}.parquet"
        pq.write_table(aggregates(part, events, manifest), snapshot / "data" / name)
        pq.write_table(as_sequences(part, events), sequences / name)
    return str(snapshot), str(sequences)


def as_sequences(users: Any, events: Events) -> pa.Table:
    """One row per user, in the form of the job ``sequences``."""
    order = np.lexsort((-events.age, events.row))
    offsets = np.searchsorted(events.row, np.arange(len(users) + 1)).astype(np.int32)
    end = midnight(AS_OF, "s")
    columns: dict[str, Any] = {"event_time": end - np.ceil(events.age * 86_400).astype(np.int64).clip(1)}
    columns |= {field: ids.astype(np.int32) for field, ids in events.ids.items()} | events.numbers
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values[order])) for name, values in columns.items()}
    return pa.table({"user_id": users, "as_of": np.full(len(users), end), **lists})


if __name__ == "__main__":
    sys.exit(main())
