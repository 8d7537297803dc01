"""Training the GUR autoencoder on aggregate snapshots: build, set up, train, save."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader

from gur_spark import storage
from gur_spark.batches.aggregates import Batch, Layout, to_batch
from gur_spark.batches.streams import AggregateDataset, stream, user_ids
from gur_spark.config.training import Training
from gur_spark.errors import SnapshotError, TrainingError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.category_tables import counted_inputs, frozen_tables
from gur_spark.models.gur.cooccurrence import Together, count_snapshots
from gur_spark.models.gur.losses import loss_terms
from gur_spark.models.gur.reconstruction import Moments, RSquared
from gur_spark.models.gur.settings import GurModel
from gur_spark.registry import artefact as registry
from gur_spark.snapshots.files import common_manifest, row_groups
from gur_spark.spaces.alignment import Alignment, align, check_alignable, check_stable_users
from gur_spark.splits import validation_side


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A new model version, as its row in ``models`` needs it."""

    card: registry.Card
    path: str
    manifest_hash: str
    metrics: Mapping[str, float]
    checkpoints: str
    """Folder from which the same call would continue; of no use once the version is registered."""

    @property
    def version(self) -> str:
        return self.card.model_version


def train(
    snapshots: Sequence[str],
    sizes: Mapping[str, int],
    vocabulary_version: int,
    vocabulary_hash: str,
    model: GurModel,
    training: Training,
    work: str,
    out: str,
    code_commit: str | None = None,
    progress: bool = False,
    made_of: Sequence[str] = (),
    align_to: str | None = None,
    seen_until: date | None = None,
    together: Together | None = None,
) -> TrainedModel:
    """Train on the snapshots in these folders and save a new version under ``out``.

    For the losses ``future`` and ``contrastive`` they are folders of training pairs (``training.pairs``), and
    ``made_of`` the snapshots' own. ``seen_until`` is the first date whose events none of them holds.

    ``together`` is what frozen tables are made of, counted elsewhere over these folders (``cooccurrence``); without,
    it is counted here.

    With ``align_to``, the folder of an older version, the new embeddings are moved into its space (``alignment``).

    Checkpoints lie in a folder of ``work``, which the caller removes; a run that was killed is continued by the same
    call, and ends with the weights it would have had. The same data, seed and configuration give the same
    weights on CPU.

    Raises:
        SnapshotError: a snapshot is missing, empty or damaged, or their manifests differ.
        TrainingError: a side of the split is empty, no GPU where one is asked for, or the loss is not finite.
        ModelError: the older version takes other aggregates, has another width, or there are too few stable users.
    """
    # Lightning takes ten seconds to import: other jobs, and errors, need not wait for it.
    from gur_spark.training.fit import fit

    accelerator = _accelerator(training.device)
    if not snapshots:
        raise TrainingError("no snapshot to train on: name as-of dates with --as-of or training.as_of")
    layout = Layout.of(common_manifest(snapshots, Manifest), sizes)
    older = registry.load_model(align_to) if align_to else None
    if older:
        check_alignable(older, layout.manifest.hash, vocabulary_hash, model)
        check_stable_users(older, snapshots)
    data = _Data.of(snapshots, layout, training, model)
    with _threads(training.threads):
        torch.manual_seed(training.seed)
        module = GUR(layout, model)
        _set_up(module, data, model, together)
        checkpoints = storage.join(work, _fingerprint(data, module, model, vocabulary_hash))
        fitted, epochs = fit(module, data.loader, training, checkpoints, accelerator, progress)
        metrics = {**fitted, **_row_counts(data), **_validation_metrics(module, data)}
        alignment = _align(module, older, data) if older else None
        if alignment:
            metrics |= {"alignment_residual": alignment.residual, "alignment_users": float(alignment.users)}
    card = registry.save(
        out,
        module,
        layout=layout,
        model=model,
        training=training,
        vocabulary_version=vocabulary_version,
        vocabulary_hash=vocabulary_hash,
        metrics=metrics,
        training_snapshots=tuple(made_of or snapshots),
        training_dates=_dates(snapshots),
        epochs=epochs,
        code_commit=code_commit,
        alignment=alignment,
        seen_until=seen_until,
    )
    return TrainedModel(
        card=card,
        path=storage.join(out, card.model_version),
        manifest_hash=layout.manifest.hash,
        metrics=metrics,
        checkpoints=checkpoints,
    )


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The snapshots' rows, their users split in two."""

    snapshots: Sequence[str]
    layout: Layout
    training: Training
    future: bool
    """Whether batches have what followed."""
    views: int
    """Other looks at a user that batches have."""
    train_rows: int
    validation_rows: int

    @classmethod
    def of(cls, snapshots: Sequence[str], layout: Layout, training: Training, model: GurModel) -> "_Data":
        """Count both sides; raises where one of them is empty."""
        rows, validation_rows = 0, 0
        for snapshot in snapshots:
            sides = [_validation(users, training) for users in user_ids(snapshot)]
            if not sum(map(len, sides)):
                raise SnapshotError(f"snapshot {snapshot} is empty: there is nobody to train on")
            rows += sum(map(len, sides))
            validation_rows += sum(int(side.sum()) for side in sides)
        groups = sum(len(row_groups(snapshot)) for snapshot in snapshots)
        if groups < training.processes:
            raise TrainingError(
                f"training.processes is {training.processes}, and the snapshots have {groups} row groups; each process "
                "reads its own"
            )
        for side, count in (("training", rows - validation_rows), ("validation", validation_rows)):
            if not count:
                raise TrainingError(
                    f"no user is on the {side} side: {rows} rows, training.validation_share={training.validation_share}"
                )
        return cls(
            snapshots=snapshots,
            layout=layout,
            training=training,
            future="future" in model.loss,
            views=model.views,
            train_rows=rows - validation_rows,
            validation_rows=validation_rows,
        )

    def training_batches(self) -> Iterator[Batch]:
        """In the order of the files, the same for every pass."""
        return stream(self.snapshots, self.layout, self.training.batch_size, keep=self._keeps_training)

    def validation_batches(self) -> Iterator[Batch]:
        return stream(
            self.snapshots,
            self.layout,
            self.training.batch_size,
            keep=self._keeps_validation,
            future=self.future,
            views=self.views,
        )

    def loader(self, epoch: int | None, part: tuple[int, int] = (0, 1)) -> "DataLoader[Batch]":
        """Training batches as this epoch shuffles them; None: the validation batches, as they lie.

        ``part``: of which process, of how many, that share the row groups and each batch of ``training.batch_size``.
        """
        dataset = AggregateDataset(
            self.snapshots,
            self.layout,
            self.training.batch_size,
            part=part,
            rows=self.validation_rows if epoch is None else self.train_rows,
            shuffle_seed=None if epoch is None else (self.training.seed, epoch),
            keep=self._keeps_validation if epoch is None else self._keeps_training,
            future=self.future,
            views=self.views,
        )
        # Its own generator: an iterator that is made must not move the one that dropout draws from.
        return DataLoader(dataset, batch_size=None, generator=torch.Generator())

    def _keeps_training(self, users: pa.Array) -> Any:
        return ~_validation(users, self.training)

    def _keeps_validation(self, users: pa.Array) -> Any:
        return _validation(users, self.training)


def _validation(users: pa.Array, training: Training) -> Any:
    return validation_side(users, training.validation_share, training.seed)


def _dates(snapshots: Sequence[str]) -> tuple[str, ...]:
    """The as-of dates of their rows, ascending."""
    filled = [next(group for group in row_groups(snapshot) if group.rows) for snapshot in snapshots]
    return tuple(sorted({str(next(group.read(["as_of"], 1))["as_of"][0]) for group in filled}))


def _accelerator(device: str) -> str:
    if device == "gpu" and not torch.cuda.is_available():
        raise TrainingError("training.device is 'gpu', and torch finds no GPU; use 'auto' or 'cpu'")
    return "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The number of threads is part of what makes a run repeatable: sums are split by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _set_up(module: GUR, data: _Data, model: GurModel, together: Together | None) -> None:
    """What is computed from the training users rather than learned: frozen tables, mean and std."""
    if model.tables == "frozen":
        if together is None:
            wanted = counted_inputs(data.layout, model)
            together = count_snapshots(data.snapshots, data.layout.manifest, wanted, data.training)
        module.inputs.set_tables(frozen_tables(together, data.layout, model))
    moments = Moments(module.inputs.targets)
    for batch in data.training_batches():
        moments.update(module.inputs.raw(batch).numpy())
    for column, mean in zip(data.layout.dense, moments.mean_T, strict=False):
        if not np.isfinite(mean):
            raise TrainingError(f"column '{column.name}' has values that are not finite")
    module.inputs.set_standardisation(moments)


def _fingerprint(data: _Data, module: GUR, model: GurModel, vocabulary_hash: str) -> str:
    """Names what a run depends on: only a run of the same inputs may continue from a checkpoint."""
    inputs = {
        "manifest": data.layout.manifest.hash,
        "files": [[group.file, group.number, group.rows] for s in data.snapshots for group in row_groups(s)],
        "vocabulary": [vocabulary_hash, dict(data.layout.sizes)],
        "config": [model.model_dump(mode="json"), data.training.model_dump(mode="json")],
        "weights": {name: list(tensor.shape) for name, tensor in module.state_dict().items()},
        "versions": [torch.__version__, version("lightning")],
    }
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _align(module: GUR, older: registry.LoadedModel, data: _Data) -> Alignment:
    def embed(rows: pa.RecordBatch) -> Any:
        with torch.inference_mode():
            return module.encode(to_batch(rows, data.layout)).numpy()

    return align(embed, older, data.snapshots, data.layout.columns)


def _row_counts(data: _Data) -> dict[str, float]:
    return {"train_rows": float(data.train_rows), "validation_rows": float(data.validation_rows)}


@torch.inference_mode()
def _validation_metrics(module: GUR, data: _Data) -> dict[str, float]:
    """Of the validation users: each loss before it is weighted, and R2 per block."""
    found = RSquared(module.target_blocks, data.layout.windows_of)
    losses = dict.fromkeys(module.loss_weights, 0.0)
    for batch in data.validation_batches():
        made = module(batch)
        found.update(made, batch)
        for name, loss_B in loss_terms(made, batch, module.loss_weights).items():
            losses[name] += float(loss_B.double().sum()) / data.validation_rows
    return found.result() | {f"validation_{name}": loss for name, loss in losses.items()}
