"""Dropout of inputs: a user with hidden events looks like one without events, and attributes stay."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch

from gur_spark.batches.aggregates import AggregateBatch, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import AttributeField, NumericField
from gur_spark.features.declare.spec import aggregation
from gur_spark.features.kernel.partition import row_without_events
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.losses import training_loss
from gur_spark.models.gur.settings import GurModel
from gur_spark.statistics.moments import Moments
from tests.aggregate_data import SIZES, WINDOWS, random_events, tiny_manifest, to_rows

FEATURES = [
    aggregation(None, "silent_days", windows=[30]),
    aggregation(None, "gap_mean", windows=["lifetime"]),
    aggregation("mcc", "entropy", "mode", windows=[30]),
    aggregation("amount", "skew", "share_zero", name="chips", where="channel = 'a'", windows=[30]),
]
AGE = NumericField(name="age", step=Decimal(1), transform="none")
ATTRIBUTES = [
    AttributeField(name="country", log="profile"),
    AttributeField(name="genres", log="profile", separator="|"),
    AttributeField(name="age", log="profile", numeric=AGE),
]
MANIFEST = make_manifest("long", WINDOWS, tiny_manifest().numeric, tuple(SIZES), FEATURES, [], ATTRIBUTES)
LAYOUT = Layout.of(MANIFEST, SIZES | {"country": 5, "genres": 7})
CONFIG = GurModel(
    latent_dim=6, dropout=0, block_dropout=0, cold_dropout=1.0, loss={"likelihood": 1.0}, tables="trained",
    dense_scale="signed_log1p",
)  # fmt: skip
GENRES = [[3, 5], [], [1], [4, 5, 6]]


def rows(events: bool) -> pa.RecordBatch:
    """Forty users who differ in country, genres and age; the same without events."""
    random = np.random.default_rng(0)
    plain = to_rows(random_events(40, SIZES, ["amount"], 3, WINDOWS[-1]), tiny_manifest())
    empty = pa.Table.from_batches([row_without_events(MANIFEST)])
    made = {}
    for column in MANIFEST.columns:
        if column.name == "user_id":
            made[column.name] = plain[column.name]
        elif not events:
            made[column.name] = empty[column.name].chunk(0).take(pa.array([0] * 40))
        elif column.name in plain.schema.names:
            made[column.name] = plain[column.name]
        else:
            values = random.integers(1, 5, 40)
            made[column.name] = pa.array(values).cast(empty[column.name].type) if "array" not in column.dtype else None
    made |= {
        "country": pa.array(np.arange(40) % 4 + 1),
        "genres": pa.array([GENRES[user % 4] for user in range(40)], pa.list_(pa.int32())),
        "age": pa.array(np.arange(40.0), mask=np.arange(40) % 7 == 0),
    }
    return pa.RecordBatch.from_pydict({c.name: made[c.name] for c in MANIFEST.columns})


@pytest.fixture(scope="module")
def batch() -> AggregateBatch:
    return to_batch(rows(events=True), LAYOUT)


def made(batch: AggregateBatch, **changes: float) -> GUR:
    torch.manual_seed(0)
    module = GUR(LAYOUT, CONFIG.model_copy(update=changes))
    moments = Moments(module.inputs.targets)
    with torch.no_grad():
        moments.update(module.inputs.raw(batch).numpy())
    module.inputs.set_standardisation(moments)
    return module


def test_who_has_all_events_hidden_is_encoded_as_one_without_events(batch: AggregateBatch) -> None:
    module = made(batch)
    cold = to_batch(rows(events=False), LAYOUT)
    with torch.no_grad():
        hidden = module.train().encode(batch)
        torch.testing.assert_close(hidden, module.eval().encode(cold))
        assert not torch.allclose(hidden, module.encode(batch))
    # Attributes alone tell the users apart, and those without any still have an embedding.
    assert len({tuple(row) for row in hidden.round(decimals=4).tolist()}) > 30
    assert hidden.isfinite().all()


def test_what_is_hidden_is_reconstructed_all_the_same_and_some_users_are_not(batch: AggregateBatch) -> None:
    module = made(batch, cold_dropout=0.5)
    found = module(batch)
    torch.testing.assert_close(found.target_BT, module.inputs(batch)[0][:, : found.target_BT.shape[1]], equal_nan=True)
    with torch.no_grad():
        hidden, whole = module.encode(batch), module.eval().encode(batch)
    same = torch.isclose(hidden, whole, atol=1e-5).all(dim=1)
    assert 5 < int(same.sum()) < 35
    training_loss(found, batch, module.loss_weights).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_without_attributes_nobody_is_hidden() -> None:
    assert GUR(Layout.of(tiny_manifest(), SIZES), CONFIG).cold_dropout is None


def test_a_set_is_the_mean_of_its_embedded_members(batch: AggregateBatch) -> None:
    module = made(batch)
    table = module.inputs.tables["genres"].weight.detach()
    raw_BT = module.inputs.raw(batch).detach()
    columns = [t for t, block in enumerate(module.inputs.blocks[: module.inputs.targets]) if block.field == "genres"]
    for user in range(4):
        members = GENRES[user]
        expected = table[members].mean(0) if members else torch.full((table.shape[1],), torch.nan)
        torch.testing.assert_close(raw_BT[user, columns], expected, equal_nan=True)
    assert LAYOUT.windows_of["genres"] == (0,)
