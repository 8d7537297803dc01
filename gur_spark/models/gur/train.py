"""Training of the GUR autoencoder on aggregate snapshots: build, set up, fit, measure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gur_spark.batches.aggregates import AggregateBatch, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.batches.streams import READ_ROWS, AggregateDataset, stream, user_ids
from gur_spark.config.training import Training
from gur_spark.errors import SnapshotError, TrainingError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.alignment import Alignment, align, check_alignable, check_stable_users
from gur_spark.models.gur.autoencoder import GUR, Encoder, make_encoder
from gur_spark.models.gur.category_tables import counted_inputs, frozen_tables
from gur_spark.models.gur.cooccurrence import Together, count_snapshots
from gur_spark.models.gur.dimensions import name_dimensions
from gur_spark.models.gur.linear_fit import LinearFit, Standardisation, fit_linear_path
from gur_spark.models.gur.losses import loss_terms, training_loss
from gur_spark.models.gur.reconstruction import RSquared
from gur_spark.models.gur.scorer import ROTATION, SHIFT, load_scorer
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Artefact, Fitted, Trained, Trainer, TrainingInputs
from gur_spark.snapshots.files import common_manifest, row_groups
from gur_spark.splits import validation_side
from gur_spark.statistics.moments import Moments

SCALED_BY = 65_536
"""Training users, at most, that the scale of the nonlinear part is measured on."""


def train(inputs: TrainingInputs, trainer: Trainer) -> Trained:
    """Train an autoencoder, or fit principal components alone where the linear part has the whole width.

    For the losses ``future`` and ``contrastive``, ``inputs.folders`` hold training pairs (``pairs``); otherwise they
    are the snapshots. ``inputs.prepared`` is the co-occurrence for frozen tables, counted on Spark; without it, it is
    counted here. With ``inputs.align_to`` the embeddings are moved into the space of that older version
    (``alignment``).

    Raises:
        SnapshotError: a snapshot is missing, empty or damaged, or their manifests differ.
        TrainingError: a side of the split is empty, or a column or the loss is not finite.
        ModelError: the older version takes other aggregates or has another width, or there are too few stable users.
    """
    model = cast(GurModel, inputs.model)
    manifest = cast(Manifest, common_manifest(inputs.folders))
    layout = Layout.of(manifest, inputs.vocabulary.sizes)
    if inputs.align_to:
        check_alignable(inputs.align_to, layout.manifest.hash, inputs.vocabulary.hash, model)
        check_stable_users(inputs.align_to, inputs.folders)
    data = TrainingRows.of(inputs.folders, layout, inputs.training, model)
    module = make_encoder(layout, model)
    fit = _set_up(module, data, model, inputs.prepared)
    fitted, metrics = Fitted(metrics={"epochs": 0.0}, epochs=()), _row_counts(data)
    if isinstance(module, GUR):
        fitted = trainer.fit(GurLearner(module, data), _depends_on(data, model, inputs.vocabulary.hash))
        _scale_nonlinear(module, data)
        metrics |= _validation_metrics(module, data)
    if fit:
        metrics["linear_variance"] = fit.share
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    rotation_KK = None
    if inputs.align_to:
        found = _align(module, inputs.align_to, data)
        metrics |= {"alignment_residual": found.residual, "alignment_users": float(found.users)}
        tensors |= {ROTATION: torch.from_numpy(found.rotation_LL), SHIFT: torch.from_numpy(found.shift_L)}
        rotation_KK = found.rotation_LL[: model.linear_width, : model.linear_width]
    return Trained(
        tensors=tensors,
        manifest=manifest,
        fitted=fitted,
        metrics=metrics,
        aligned_to=inputs.align_to.version if inputs.align_to else None,
        dimensions=name_dimensions(module.linear, layout, fit, inputs.texts, rotation_KK)
        if module.linear and fit
        else (),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """Rows of the snapshots, with their users split into a training side and a validation side."""

    snapshots: Sequence[str]
    layout: Layout
    training: Training
    future: bool
    """Whether batches have the future."""
    views: int
    """Number of other views of a user in batches."""
    train_rows: int
    validation_rows: int

    @classmethod
    def of(cls, snapshots: Sequence[str], layout: Layout, training: Training, model: GurModel) -> "TrainingRows":
        """Count the rows of both sides.

        Raises:
            SnapshotError: a snapshot is empty.
            TrainingError: a side of the split is empty, or there are fewer row groups than processes.
        """
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
            future="future" in model.learns_from,
            views=model.views,
            train_rows=rows - validation_rows,
            validation_rows=validation_rows,
        )

    def training_batches(self) -> Iterator[AggregateBatch]:
        """Yield all training users in large batches, in the order of the files, the same for every pass."""
        return stream(self.snapshots, self.layout, READ_ROWS, keep=self._keeps_training)

    def validation_batches(self) -> Iterator[AggregateBatch]:
        """Yield validation batches in the order of the files."""
        return stream(
            self.snapshots,
            self.layout,
            self.training.batch_size,
            keep=self._keeps_validation,
            future=self.future,
            views=self.views,
        )

    def loader(self, epoch: int | None, part: tuple[int, int]) -> "DataLoader[AggregateBatch]":
        """Load training batches as this epoch shuffles them; None: validation batches in the order of the files.

        ``part`` (k, n) names the k-th of n processes that share the row groups and each batch of
        ``training.batch_size``.
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
        # The loader has its own generator: making an iterator must not move the one that dropout draws from.
        return DataLoader(dataset, batch_size=None, generator=torch.Generator())

    def _keeps_training(self, users: pa.Array) -> Any:
        return ~_validation(users, self.training)

    def _keeps_validation(self, users: pa.Array) -> Any:
        return _validation(users, self.training)


class GurLearner:
    """The autoencoder, its batches, losses and optimiser, as the trainer drives them."""

    def __init__(self, module: GUR, rows: TrainingRows) -> None:
        self._module, self._rows = module, rows
        # While the weight of the divergence rises, the loss by its full weight may rise, too.
        self.warmup = module.warmup

    @property
    def module(self) -> GUR:
        return self._module

    def batches(self, epoch: int | None, part: tuple[int, int]) -> "DataLoader[AggregateBatch]":
        return self._rows.loader(epoch, part)

    def users(self, batch: AggregateBatch) -> int:
        return len(batch)

    def loss(self, batch: AggregateBatch, epoch: int | None) -> Tensor:
        # Validation uses the same weights in every epoch, so that epochs can be compared.
        weights = self._module.loss_weights if epoch is None else self._module.weights(epoch)
        return training_loss(self._module(batch), batch, weights).mean()

    def optimizer(self, training: Training) -> tuple[Any, Any]:
        learned = [p for p in self._module.parameters() if p.requires_grad]
        rate, decay = training.learning_rate, training.weight_decay
        optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=decay, fused=True)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.9)


def _validation(users: pa.Array, training: Training) -> Any:
    return validation_side(users, training.validation_share, training.seed)


@torch.no_grad()
def _set_up(module: Encoder, data: TrainingRows, model: GurModel, together: Together | None) -> LinearFit | None:
    """Set the values that are computed from the training users: frozen tables, means, deviations and the linear path.

    Raises:
        TrainingError: a column has values that are not finite.
    """
    inputs = module.inputs if isinstance(module, GUR) else None
    if inputs and model.tables == "frozen":
        if together is None:
            wanted = counted_inputs(data.layout, model)
            together = count_snapshots(data.snapshots, data.layout.manifest, wanted, data.training)
        inputs.set_tables(frozen_tables(together, data.layout, model))
    moments, standardisation = Moments(inputs.targets if inputs else 0), Standardisation(data.layout)
    for batch in data.training_batches():
        standardisation.update(batch)
        if inputs:
            moments.update(inputs.raw(batch).numpy())
    standardisation.check(data.layout)
    if inputs:
        inputs.set_standardisation(moments)
    if module.linear is None:
        return None
    standardisation.set(module.linear)
    return fit_linear_path(module.linear, data.training_batches)


def _depends_on(data: TrainingRows, model: GurModel, vocabulary_hash: str) -> Mapping[str, Any]:
    """Collect everything that decides the weights: only an equal run may continue from a checkpoint."""
    return {
        "manifest": data.layout.manifest.hash,
        "files": [[group.file, group.number, group.rows] for s in data.snapshots for group in row_groups(s)],
        "vocabulary": [vocabulary_hash, dict(data.layout.sizes)],
        "model": model.model_dump(mode="json"),
    }


def _align(module: Encoder, older: Artefact, data: TrainingRows) -> Alignment:
    def embed(rows: pa.RecordBatch) -> Any:
        with torch.inference_mode():
            return module.encode(to_batch(rows, data.layout)).numpy()

    return align(embed, load_scorer(older), cast(GurModel, older.model), data.snapshots, older.version)


def _row_counts(data: TrainingRows) -> dict[str, float]:
    return {"train_rows": float(data.train_rows), "validation_rows": float(data.validation_rows)}


@torch.no_grad()
def _scale_nonlinear(module: GUR, data: TrainingRows) -> None:
    """Set the scale of the nonlinear part by the first training users."""
    if module.latent.scaled:
        moments = Moments(module.latent.width)
        for batch in islice(data.training_batches(), SCALED_BY // READ_ROWS):
            moments.update(module.nonlinear(batch).numpy())
        module.latent.set_scale(moments)


@torch.inference_mode()
def _validation_metrics(module: GUR, data: TrainingRows) -> dict[str, float]:
    """Measure each loss before it is weighted, and R2 per block, over the validation users."""
    found = RSquared(module.target_blocks, data.layout.windows_of)
    losses = dict.fromkeys(module.loss_weights, 0.0)
    for batch in data.validation_batches():
        made = module(batch)
        found.update(made, batch)
        for name, loss_B in loss_terms(made, batch, module.loss_weights).items():
            losses[name] += float(loss_B.double().sum()) / data.validation_rows
    return found.result() | {f"validation_{name}": loss for name, loss in losses.items()}
