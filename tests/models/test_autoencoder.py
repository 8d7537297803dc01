from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gur_spark.batches.aggregates import AggregateBatch, Future, Histogram, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import AttributeField, NumericField
from gur_spark.features.declare.spec import aggregation
from gur_spark.models.gur.autoencoder import GUR, BlockDropout
from gur_spark.models.gur.category_tables import frozen_tables
from gur_spark.models.gur.layers import MultinomialHead
from gur_spark.models.gur.losses import reconstruction_loss, training_loss
from gur_spark.models.gur.reconstruction import Block, RSquared
from gur_spark.models.gur.settings import GurModel
from gur_spark.statistics.moments import Moments
from tests.aggregate_data import SIZES, WINDOWS, random_events, tiny_manifest, to_rows

LAYOUT = Layout.of(tiny_manifest(), SIZES)
CONFIG = GurModel(
    latent_dim=6, dropout=0.1, block_dropout=0.1, loss={"likelihood": 1.0}, tables="trained", dense_scale="signed_log1p"
)
FROZEN_MSE = CONFIG.model_copy(update={"loss": {"mse": 1.0}, "tables": "frozen"})
FROZEN_LIKELIHOOD = CONFIG.model_copy(update={"tables": "frozen"})


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    return to_rows(random_events(60, SIZES, ["amount"], seed=3, longest=WINDOWS[-1]), tiny_manifest())


@pytest.fixture(scope="module")
def batch(rows: pa.RecordBatch) -> AggregateBatch:
    return to_batch(rows, LAYOUT)


def made(config: GurModel, batch: AggregateBatch, layout: Layout = LAYOUT) -> GUR:
    torch.manual_seed(0)
    module = GUR(layout, config)
    if config.tables == "frozen":
        module.inputs.set_tables(frozen_tables({}, layout, config))
    moments = Moments(module.inputs.targets)
    with torch.no_grad():
        moments.update(module.inputs.raw(batch).numpy())
    module.inputs.set_standardisation(moments)
    return module


@pytest.mark.parametrize("config", [CONFIG, FROZEN_MSE, FROZEN_LIKELIHOOD])
def test_shapes_are_those_of_the_layout(config: GurModel, batch: AggregateBatch) -> None:
    module = made(config, batch)
    reconstruction = module(batch)
    assert module.encode(batch).shape == (60, 6)
    assert reconstruction.prediction_BT.shape == reconstruction.target_BT.shape == (60, len(module.target_blocks))
    expected = {} if "mse" in config.loss else {f: (2 * 60, size) for f, size in SIZES.items()}
    assert {f: tuple(p.shape) for f, p in reconstruction.logits.items()} == expected
    assert reconstruction_loss(reconstruction, batch).shape == (60,)


@pytest.mark.parametrize("config", [CONFIG, FROZEN_MSE, FROZEN_LIKELIHOOD])
def test_every_parameter_learns_and_frozen_tables_do_not(config: GurModel, batch: AggregateBatch) -> None:
    module = made(config, batch)
    reconstruction_loss(module(batch), batch).mean().backward()
    without = {name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    frozen = {f"inputs.tables.of_{field}.weight" for field in SIZES}
    assert without == (frozen if config.tables == "frozen" else set())


def test_a_field_may_be_named_like_a_method_of_a_module() -> None:
    names = dict.fromkeys(("type", "keys", "forward", "training"), 5)
    manifest = tiny_manifest(numeric=(), categorical=tuple(names))
    layout = Layout.of(manifest, names)
    rows = to_rows(random_events(20, names, (), seed=0, longest=WINDOWS[-1]), manifest)
    module = GUR(layout, CONFIG)
    assert set(module(to_batch(rows, layout)).logits) == set(names)


@pytest.mark.parametrize("loss", [{"future": 1.0}, {"likelihood": 1.0, "future": 0.5}])
def test_with_the_future_every_parameter_learns_and_without_a_reconstruction_there_is_no_decoder(
    loss: dict[str, float], batch: AggregateBatch
) -> None:
    module = made(CONFIG.model_copy(update={"loss": loss}), batch)
    assert (module.decoder is None) == ("likelihood" not in loss)
    came = {field: one_window(histogram, len(batch)) for field, histogram in batch.histograms.items()}
    events_B = torch.arange(len(batch), dtype=torch.float32) % 4
    paired = AggregateBatch(batch.dense_BD, batch.histograms, Future(events_B, came))
    found = module(paired)
    assert found.future is not None
    assert {f: tuple(p.shape) for f, p in found.future.logits.items()} == {f: (60, size) for f, size in SIZES.items()}
    training_loss(found, paired, module.loss_weights).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
    # The embedding is of the past alone.
    module.eval()
    assert torch.equal(module.encode(paired), module.encode(batch))


def one_window(histogram: Histogram, users: int) -> Histogram:
    """The last window of a histogram."""
    ids, shares, offsets = histogram.window(len(WINDOWS) - 1, users)
    bags = torch.repeat_interleave(torch.arange(users), offsets.diff())
    return Histogram(ids, bags, shares, offsets, offsets.diff() > 0)


@pytest.mark.parametrize("windows", [(5,), (7, 30, 90)])
@pytest.mark.parametrize(("numeric", "sizes"), [((), SIZES), (("amount",), {}), ((), {})])
def test_pipelines_without_numbers_or_without_categories_train_too(
    windows: tuple[int, ...], numeric: tuple[str, ...], sizes: dict[str, int]
) -> None:
    manifest = tiny_manifest(windows=windows, numeric=numeric, categorical=tuple(sizes))
    layout = Layout.of(manifest, sizes)
    rows = to_rows(random_events(20, sizes, numeric, seed=0, longest=windows[-1]), manifest)
    batch = to_batch(rows, layout)
    for config in (CONFIG, FROZEN_MSE):
        loss = reconstruction_loss(made(config, batch, layout)(batch), batch).mean()
        assert torch.isfinite(loss)


@pytest.mark.parametrize("config", [CONFIG, FROZEN_MSE])
def test_declared_numbers_and_ids_and_attributes_are_inputs_and_lists_are_not(
    config: GurModel, rows: pa.RecordBatch
) -> None:
    features = [
        aggregation("mcc", "entropy", "mode", {"top_k": 2}, windows=[30, "lifetime"]),
        aggregation("amount", "skew", windows=[30]),
    ]
    age = NumericField(name="age", step=Decimal(1), transform="none")
    attributes = [AttributeField(name="country", log="profile"), AttributeField(name="age", log="profile", numeric=age)]
    manifest = make_manifest("long", WINDOWS, tiny_manifest().numeric, tuple(SIZES), features, [], attributes)
    layout = Layout.of(manifest, SIZES | {"country": 4})
    numbers = ["mcc_entropy_30d", "mcc_entropy_lifetime", "amount_skew_30d", "age"]
    ids = {"mcc_mode_30d": 9, "mcc_mode_lifetime": 9, "country": 4}
    assert set(numbers) == {c.name for c in layout.dense} - {c.name for c in LAYOUT.dense}
    assert layout.sizes == SIZES | ids
    table, random = pa.Table.from_batches([rows]), np.random.default_rng(0)
    for name in numbers:
        table = table.append_column(name, pa.array(random.normal(size=len(table))))
    for name, size in ids.items():
        unknown = np.arange(len(table)) % 5 == 0
        table = table.append_column(name, pa.array(random.integers(1, size, len(table)), mask=unknown))
    batch = to_batch(table.combine_chunks().to_batches()[0], layout)
    module = made(config, batch, layout)
    reconstruction_loss(module(batch), batch).mean().backward()
    # A single id is embedded as itself, and its window is its column's.
    raw_BT = module.inputs.raw(batch).detach()
    country = [
        t for t, block in enumerate(module.inputs.blocks[: module.inputs.targets]) if block == Block(0, "country")
    ]
    for user, row in enumerate(table.to_pylist()):
        known = row["country"] is not None
        expected = module.inputs.tables["country"].weight[row["country"]].detach() if known else torch.nan
        assert torch.equal(raw_BT[user, country], torch.zeros(len(country)) + expected) or not known
        assert bool(raw_BT[user, country].isnan().all()) != known
    # The entropy of a category's ids is not reported with the histogram of its ids.
    found = RSquared(module.target_blocks, layout.windows_of)
    with torch.inference_mode():
        found.update(module.eval()(batch), batch)
    assert {"r2_country_0d", "r2_mcc_mode_30d_30d", "r2_mcc_30d"} <= found.result().keys()


def test_a_pooled_block_is_the_mean_of_the_embedded_events(rows: pa.RecordBatch, batch: AggregateBatch) -> None:
    module = made(CONFIG, batch)
    pooled = module.inputs.raw(batch)[:, len(LAYOUT.dense) :].detach()
    for user, row in enumerate(rows.to_pylist()):
        expected = []
        for field in SIZES:
            table = module.inputs.tables[field].weight.detach()
            for days in WINDOWS:
                counts = row[f"{field}_counts_{days}d"]
                events = [i for i, count in zip(row[f"{field}_ids"], counts, strict=True) for _ in range(count)]
                expected.append(table[events].mean(0) if events else torch.full_like(table[0], torch.nan))
        torch.testing.assert_close(pooled[user], torch.cat(expected), equal_nan=True)


@pytest.mark.parametrize("config", [CONFIG, FROZEN_MSE])
def test_inputs_are_standardised_as_numpy_does(config: GurModel, batch: AggregateBatch) -> None:
    module = made(config, batch)
    found, flags = module.inputs(batch)
    raw = module.inputs.raw(batch).detach().double().numpy()
    dense = batch.dense_BD.double().numpy()
    np.testing.assert_allclose(raw[:, : dense.shape[1]], np.sign(dense) * np.log1p(np.abs(dense)), rtol=1e-5)
    kept = raw.shape[1] if config.tables == "frozen" else dense.shape[1]
    std = np.nanstd(raw[:, :kept], axis=0)
    # Padding has no user: its column of an identity table is constant, and only centred.
    expected = (raw[:, :kept] - np.nanmean(raw[:, :kept], axis=0)) / np.where(std > 1e-6, std, 1)
    np.testing.assert_allclose(found[:, :kept].detach(), expected, atol=1e-4)
    np.testing.assert_allclose(found[:, kept:].detach(), raw[:, kept:], rtol=1e-6)
    names = [c.name for c in LAYOUT.dense]
    counts = ["events_7d", "events_30d", "amount_count_7d", "amount_count_30d"]
    assert flags.tolist() == [[float(user[names.index(c)] == 0) for c in counts] for user in dense]


def test_padding_has_no_probability_and_the_others_sum_to_one() -> None:
    p_MV = MultinomialHead(width=3, windows=2, size=5, table=4)(torch.randn(7, 3)).softmax(1)
    assert p_MV.shape == (14, 5)
    assert not p_MV[:, 0].any()
    torch.testing.assert_close(p_MV.sum(1), torch.ones(14))


def test_block_dropout_hides_whole_windows_and_fields_in_training_only() -> None:
    blocks = [Block(w, field) for w in (7, 30) for field in (None, "amount", "mcc") for _ in range(2)]
    dropout = BlockDropout(blocks, p=0.5)
    x_BI = torch.ones(400, len(blocks))
    torch.manual_seed(0)
    hidden = dropout(x_BI) == 0
    for window in (7, 30):
        activity = [i for i, b in enumerate(blocks) if b == Block(window, None)]
        of_window = [i for i, b in enumerate(blocks) if b.window_hours == window]
        window_hidden = hidden[:, activity[0]]
        assert 0.4 < window_hidden.float().mean() < 0.6
        assert hidden[window_hidden][:, of_window].all()
    shown = ~hidden[:, 0] & ~hidden[:, 6]
    for field in ("amount", "mcc"):
        columns = [i for i, b in enumerate(blocks) if b.field == field]
        assert (hidden[shown][:, columns].all(1) | ~hidden[shown][:, columns].any(1)).all()
        assert 0.35 < hidden[shown][:, columns[0]].float().mean() < 0.65
    assert torch.equal(dropout.eval()(x_BI), x_BI)


def test_training_is_noisy_and_evaluation_is_not(batch: AggregateBatch) -> None:
    module = made(CONFIG, batch)
    assert not torch.equal(module.encode(batch), module.encode(batch))
    module.eval()
    assert torch.equal(module.encode(batch), module.encode(batch))


@pytest.mark.parametrize("config", [CONFIG, FROZEN_MSE])
def test_an_embedding_does_not_depend_on_batch_mates(
    config: GurModel, rows: pa.RecordBatch, batch: AggregateBatch
) -> None:
    module = made(config, batch).eval()
    with torch.inference_mode():
        whole = module.encode(batch)
        for size in (1, 7, 59):
            parts: list[Any] = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
            torch.testing.assert_close(
                torch.cat([module.encode(to_batch(part, LAYOUT)) for part in parts]), whole, atol=1e-6, rtol=0
            )


def test_a_user_without_events_has_an_embedding(batch: AggregateBatch) -> None:
    empty = to_batch(to_rows([[]], tiny_manifest()), LAYOUT)
    embedding = made(CONFIG, batch).eval().encode(empty)
    assert embedding.shape == (1, 6)
    assert torch.isfinite(embedding).all()
