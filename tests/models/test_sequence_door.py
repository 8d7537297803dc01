"""GUR on sequences: one model with two doors, and in the place of CoLES in a pytorch-lifestream script."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from ptls.data_load.datasets import MemoryMapDataset, ParquetDataset, ParquetFiles, inference_data_loader
from ptls.data_load.padded_batch import PaddedBatch
from ptls.frames import PtlsDataModule
from ptls.frames.coles import ColesIterableDataset, CoLESModule
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.nn import RnnSeqEncoder, TrxEncoder
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.batches.lifestream import collate
from gur_spark.errors import ModelError
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.declare.windows import Window
from gur_spark.lifestream import AutoEncoderSeqEncoder, GURDataset, GURIterableDataset, GURModule
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.reconstruction import Reconstruction
from gur_spark.models.gur.sequence_module import ReconstructionR2
from gur_spark.models.gur.settings import GurModel
from gur_spark.snapshots.sequence_rows import SequenceRows
from tests.aggregate_data import SIZES, WINDOWS, Events, random_events, tiny_manifest, to_rows

AS_OF = date(2024, 6, 1)
AS_OF_S = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp())
DAY_S = 86_400
EVENTS = random_events(60, SIZES, ["amount"], seed=3, longest=WINDOWS[-1])
MANIFEST = tiny_manifest()


def record(events: Events, as_of: int | None = AS_OF_S) -> dict[str, Any]:
    """One user as pytorch-lifestream has it."""
    ordered = sorted(events, key=lambda e: -e["age"])
    amounts = [e["amount"] for e in ordered]
    made: dict[str, Any] = {
        "event_time": torch.tensor([AS_OF_S - int(np.ceil(e["age"] * DAY_S)) for e in ordered], dtype=torch.int64),
        **{field: torch.tensor([e[field] for e in ordered], dtype=torch.int32) for field in SIZES},
        "amount": torch.tensor([a or 0.0 for a in amounts], dtype=torch.float64),
        "amount_missing": torch.tensor([2 if a is None else 1 for a in amounts], dtype=torch.int32),
    }
    return made if as_of is None else {"as_of": as_of, **made}


RECORDS = [record(events) for events in EVENTS]


def trx_encoder(**changes: Any) -> TrxEncoder:
    embeddings = {"mcc": {"in": SIZES["mcc"], "out": 4}, "channel": {"in": SIZES["channel"], "out": 3}}
    plain = {"numeric_values": {"amount": "identity"}, "use_batch_norm": False}
    return TrxEncoder(**{"embeddings": embeddings, **plain, **changes})


def encoder(trx: nn.Module | None = None, **changes: Any) -> AutoEncoderSeqEncoder:
    torch.manual_seed(0)
    return AutoEncoderSeqEncoder(trx or trx_encoder(), **{"latent_dim": 6, "time_windows": list(WINDOWS), **changes})


def trained(records: Sequence[dict[str, Any]] = RECORDS, **changes: Any) -> AutoEncoderSeqEncoder:
    """In eval mode, with statistics of all users."""
    made = encoder(**changes)
    made.moments.gathered = len(made.moments.mean_V)
    made(batch_of(records))
    return made.eval()


def batch_of(records: Sequence[dict[str, Any]]) -> PaddedBatch:
    return collate(records)[0]


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0, equal_nan=True)


@pytest.mark.parametrize("scale", ["none", "signed_log1p"])
def test_both_doors_give_the_same_embedding(scale: Any) -> None:
    seq_encoder = trained(dense_scale=scale)
    aggregates = to_batch(to_rows(EVENTS, MANIFEST), Layout.of(MANIFEST, SIZES))
    by_events = seq_encoder(batch_of(RECORDS)).detach()
    assert by_events.shape == (60, 6)
    assert by_events.std() > 0.1
    close(seq_encoder.encode_aggregates(aggregates, Layout.of(MANIFEST, SIZES)), by_events)


def means_only(config: GurModel) -> tuple[GUR, Layout]:
    """The autoencoder of the aggregates, on numbers of events, means and histograms alone."""
    kept = [c for c in MANIFEST.columns if c.statistic in ("key", "events", "mean") or c.dtype == "array<int>"]
    layout = Layout.of(MANIFEST.model_copy(update={"columns": tuple(kept)}), SIZES)
    return GUR(layout, config), layout


def test_the_autoencoder_of_the_aggregates_with_the_same_weights_gives_the_same_embedding() -> None:
    gur, layout = means_only(
        GurModel(
            **{"latent_dim": 6, "linear_dim": 0, "dropout": 0.1, "block_dropout": 0.1, "embedding_dim": 4},
            **{"loss": {"likelihood": 1.0}, "tables": "trained", "dense_scale": "signed_log1p"},
        )
    )
    assert all(isinstance(bag, nn.EmbeddingBag) for bag in gur.inputs.tables.values())
    # Both fields have tables of one width there.
    wide = TrxEncoder(
        embeddings={field: {"in": size, "out": 4} for field, size in SIZES.items()},
        numeric_values={"amount": "identity"},
        use_batch_norm=False,
    )
    seq_encoder = trained(trx=wide)
    names = [c.name for c in layout.dense]
    names += [f"{field}_{days}d_{e}" for field in SIZES for days in WINDOWS for e in range(4)]
    names += [f"empty_{days}d" for days in WINDOWS]
    place = {name: number for number, name in enumerate(seq_encoder.inputs)}
    order = [place[name] for name in names]
    assert sorted(order) == list(range(len(place)))
    with torch.no_grad():
        for field, bag in gur.inputs.tables.items():
            bag.weight.copy_(wide.embeddings[field].weight)
        gur.encoder.load_state_dict(seq_encoder.encoder.state_dict())
        gur.encoder[0].weight.copy_(seq_encoder.encoder[0].weight[:, order])
        values = order[: -len(WINDOWS)]
        gur.inputs.mean_T.copy_(seq_encoder.moments.mean_V[values])
        gur.inputs.std_T.copy_(seq_encoder.moments.std()[values])
        aggregates = to_batch(to_rows(EVENTS, MANIFEST), layout)
        close(gur.eval().encode(aggregates), seq_encoder(batch_of(RECORDS)))
        # An embedding bag over the histogram is the mean over the events.
        pooled_BV = seq_encoder.pool(batch_of(RECORDS)).values_BV
        bags_BP = gur.inputs.raw(aggregates)[:, len(layout.dense) :]
        close(bags_BP, pooled_BV[:, values[len(layout.dense) :]])


def test_a_window_is_the_mean_of_its_events_one_by_one() -> None:
    seq_encoder = trained(dense_scale="none")
    values = dict(zip(seq_encoder.inputs, seq_encoder.pool(batch_of(RECORDS)).values_BV.T, strict=False))
    table_VE = seq_encoder.trx_encoder.embeddings["mcc"].weight.detach()
    for days in WINDOWS:
        for user, events in enumerate(EVENTS):
            within = [e for e in events if e["age"] <= days]
            amounts = [e["amount"] for e in within if e["amount"] is not None]
            assert values[f"events_{days}d"][user] == len(within)
            expected = torch.tensor(np.mean(amounts) if amounts else np.nan, dtype=torch.float32)
            close(values[f"amount_mean_{days}d"][user], expected)
            ids = torch.tensor([e["mcc"] for e in within], dtype=torch.int64)
            expected_E = table_VE[ids].mean(0) if within else torch.full((4,), torch.nan)
            close(torch.stack([values[f"mcc_{days}d_{e}"][user] for e in range(4)]).detach(), expected_E)


def test_an_embedding_depends_on_its_own_user_alone() -> None:
    seq_encoder = trained()
    together = seq_encoder(batch_of(RECORDS))
    state = {name: tensor.clone() for name, tensor in seq_encoder.state_dict().items()}
    alone = torch.cat([seq_encoder(batch_of([one])) for one in RECORDS])
    close(alone, together, atol=1e-6)
    # Values under the padding belong to nobody.
    padded = batch_of(RECORDS)
    outside = torch.arange(padded.payload["mcc"].shape[1]) >= padded.seq_lens[:, None]
    for name, junk in (("amount", float("nan")), ("mcc", 3), ("event_time", AS_OF_S - 1), ("channel", 2)):
        padded.payload[name] = padded.payload[name].masked_fill(outside, junk)
    close(seq_encoder(padded), together, atol=1e-6)
    assert torch.equal(seq_encoder(batch_of(RECORDS)), together)
    assert all(torch.equal(tensor, state[name]) for name, tensor in seq_encoder.state_dict().items())


def test_events_at_or_after_as_of_and_before_the_windows_change_nothing() -> None:
    seq_encoder = trained()
    ages = [0.0, -3.0, 30 + 2 / DAY_S]
    extra = [{"age": age, "mcc": 1, "channel": 1, "amount": 1e9} for age in ages]
    more = [record([*events, *extra]) for events in EVENTS]
    assert (more[0]["event_time"] >= AS_OF_S).sum() == 2
    changed = seq_encoder(batch_of(more))
    # Only inside counts: their number is the only input they could have moved.
    close(changed, seq_encoder(batch_of(RECORDS)), atol=1e-6)
    edges = [[{"age": age, "mcc": 1, "channel": 1, "amount": 1.0}] for age in (1 / DAY_S, 7, 7 + 1 / DAY_S, 30)]
    seven, thirty = seq_encoder.inside(batch_of([record(events) for events in edges])).squeeze(2).T.tolist()
    assert (seven, thirty) == ([True, True, False, False], [True] * 4)


def test_users_without_events_have_an_embedding() -> None:
    seq_encoder = trained()
    empty = record([])
    alone = seq_encoder(batch_of([empty, empty]))
    assert torch.isfinite(alone).all()
    mixed = seq_encoder(batch_of([RECORDS[1], empty]))
    close(mixed[1], alone[0], atol=1e-6)
    assert not torch.allclose(mixed[0], mixed[1])
    # Old events only: both windows are empty as well.
    old = record([{"age": 100.0, "mcc": 1, "channel": 1, "amount": 5.0}])
    close(seq_encoder(batch_of([old]))[0], alone[0], atol=1e-6)


def test_as_of_is_a_column_or_an_argument_and_never_guessed() -> None:
    bare = [record(events, as_of=None) for events in EVENTS]
    expected = trained()(batch_of(RECORDS))
    with pytest.raises(ModelError, match="no as_of: give it to the data set or to the encoder"):
        trained()(batch_of(bare))
    by_argument = trained(as_of=AS_OF)
    close(by_argument(batch_of(bare)), expected)
    by_data_set = [GURDataset(bare, as_of=AS_OF)[user] for user in range(len(bare))]
    close(trained()(batch_of(by_data_set)), expected)
    with pytest.raises(ModelError, match="give one"):
        encoder(as_of=date(2024, 6, 2))(batch_of(RECORDS))
    with pytest.raises(ModelError, match="give one"):
        GURDataset(RECORDS, as_of=date(2024, 6, 2))[0]
    with pytest.raises(ModelError, match="expected 'as_of', or 'last_event' without a date"):
        encoder(anchor="last_event", as_of=AS_OF)


def test_the_last_event_is_an_anchor_only_where_it_is_asked_for() -> None:
    seq_encoder = encoder(anchor="last_event")
    ages = (10.0, 16.9, 17.1, 60.0)
    events = [{"age": age, "mcc": 1, "channel": 1, "amount": 1.0} for age in ages]
    inside = seq_encoder.inside(batch_of([record(events, as_of=None), record([], as_of=None)]))
    assert inside[0].tolist() == [[False, False, True, True], [False, True, True, True]]
    assert not inside[1].any()


def test_times_are_64_bit_and_their_unit_is_stated() -> None:
    narrow = [{**one, "event_time": one["event_time"].int()} for one in RECORDS]
    with pytest.raises(ModelError, match=r"'event_time' is torch\.int32; expected torch\.int64"):
        trained()(batch_of(narrow))
    micros = [{**one, "as_of": AS_OF_S * 1_000_000, "event_time": one["event_time"] * 1_000_000} for one in RECORDS]
    close(trained(micros, unit="us")(batch_of(micros)), trained()(batch_of(RECORDS)))
    with pytest.raises(ModelError, match="unit 'h': expected one of"):
        encoder(unit="h")


def test_a_data_set_cuts_the_future_off_and_an_iterable_one_reads_no_further_than_it_is_asked() -> None:
    late = record([{"age": age, "mcc": 1, "channel": 1, "amount": 1.0} for age in (-1.0, 0.0, 2.0)])
    assert [len(v) for k, v in GURDataset([late])[0].items() if k != "as_of"] == [1] * 5
    read = []

    def records() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            read.append(number)
            yield RECORDS[number % 60]

    loader = DataLoader(GURIterableDataset(records()), batch_size=10, collate_fn=GURIterableDataset.collate_fn)
    batch, rows = next(iter(loader))
    assert (len(batch), rows.tolist(), len(read)) == (10, list(range(10)), 10)
    with pytest.raises(ModelError, match="a record has no 'event_time'"):
        GURDataset([{"mcc": torch.tensor([1])}])[0]


class Numbered(torch.utils.data.Dataset[dict[str, Any]]):
    """Users numbered from 1."""

    def __init__(self, users: int) -> None:
        self.users = users

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({**RECORDS[1], "number": n} for n in range(1, self.users + 1))


def test_the_workers_of_a_loader_share_a_stream() -> None:
    data = GURIterableDataset(Numbered(9))
    loader = DataLoader(data, batch_size=2, num_workers=2, collate_fn=data.collate_fn)
    seen = [number for batch, _ in loader for number in batch.payload["number"].tolist()]
    assert sorted(seen) == list(range(1, 10))


def test_what_cannot_be_is_refused() -> None:
    for windows in ([], [30, 7], [7, 7], [0, 7]):
        with pytest.raises(ModelError, match="time_windows: expected ascending days"):
            encoder(time_windows=windows)
    projected = encoder(trx_encoder(linear_projection_size=5))
    with pytest.raises(ModelError, match="loss 'likelihood' needs a TrxEncoder without"):
        GURModule(projected)
    with pytest.raises(ModelError, match="expected 'likelihood' or 'mse'"):
        GURModule(projected, loss="other")  # type: ignore[arg-type]
    layout = Layout.of(MANIFEST, SIZES)
    aggregates = to_batch(to_rows(EVENTS, MANIFEST), layout)
    for other, said in (
        (projected, "averages of the numbers themselves"),
        (encoder(trx_encoder(numeric_values={"amount": "log"})), r"not so: \['amount'\]"),
        (encoder(trx_encoder(use_batch_norm=True)), "averages of the numbers themselves"),
        (encoder(time_windows=[7]), "the encoder has windows"),
        (encoder(trx_encoder(embeddings={"mcc": {"in": 5, "out": 2}})), "'mcc': 5 ids in the encoder, 9 here"),
    ):
        with pytest.raises(ModelError, match=said):
            other.eval().encode_aggregates(aggregates, layout)
    one = encoder()
    one.is_reduce_sequence = False
    with pytest.raises(ModelError, match="none of an event"):
        one(batch_of(RECORDS))


@pytest.mark.parametrize("loss", ["likelihood", "mse"])
def test_every_parameter_learns_but_those_that_would_shrink(loss: Any) -> None:
    module = GURModule(encoder(block_dropout=0.0), loss=loss)
    made, batch = module.shared_step(*collate(RECORDS))
    module._loss(made, batch).backward()
    without = {name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    tables = {f"_seq_encoder.trx_encoder.embeddings.{field}.weight" for field in SIZES}
    assert without == (tables if loss == "mse" else set())
    assert not made.target_BT.requires_grad
    if loss == "likelihood":
        histogram = batch.histograms["mcc"]
        sums = torch.zeros(len(histogram.filled_M)).index_add(0, histogram.bags_N, histogram.shares_N)
        close(sums, histogram.filled_M.float())


def test_an_encoder_of_events_whose_columns_are_no_fields_trains_by_squared_error() -> None:
    seq_encoder = encoder(trx_encoder(linear_projection_size=5), block_dropout=0.0)
    assert [name for name in seq_encoder.inputs if name.startswith("event_7d")] == [f"event_7d_{e}" for e in range(5)]
    module = GURModule(seq_encoder, loss="mse")
    made, batch = module.shared_step(*collate(RECORDS))
    module._loss(made, batch).backward()
    assert made.prediction_BT.shape == (60, 2 + 2 * 5)
    there = made.target_BT[~made.target_BT.isnan()]
    # Standardised by these very users.
    assert abs(float(there.mean())) < 0.01
    assert {n for n, p in module.named_parameters() if p.grad is None} == {
        n for n, _ in module.named_parameters() if n.startswith("_seq_encoder.trx_encoder.")
    }


def test_r2_is_one_minus_residual_over_total() -> None:
    target, prediction = torch.tensor([[1.0, float("nan")], [3.0, 5.0]]), torch.tensor([[1.0, 9.0], [2.0, 5.0]])
    found = ReconstructionR2()(Reconstruction(target, prediction, {}), None)
    # Targets 1, 3, 5: total 8; residual 1.
    assert float(found) == pytest.approx(1 - 1 / 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The users with events, as the job writes them, in two files."""
    where = tmp_path_factory.mktemp("sequences")
    steps = [
        {
            "user_id": user,
            "event_time": (AS_OF_S - int(np.ceil(e["age"] * DAY_S))) * 1_000_000,
            **{field: e[field] for field in SIZES},
            "amount": None if e["amount"] is None else round(e["amount"] * 100),
        }
        for user, events in enumerate(EVENTS)
        for e in sorted(events, key=lambda e: -e["age"])
    ]
    types = {"user_id": pa.int64(), "event_time": pa.int64(), **dict.fromkeys(SIZES, pa.int32()), "amount": pa.int64()}
    manifest = sequence_manifest(MANIFEST, Window(days=WINDOWS[-1]))
    rows = SequenceRows(manifest=manifest, numeric=MANIFEST.numeric, as_of=AS_OF).of(
        pa.Table.from_pylist(steps, schema=pa.schema(types))
    )
    for number, half in enumerate((rows.slice(0, 25), rows.slice(25))):
        pq.write_table(half, where / f"part-{number}.parquet")
    return where


USERS = sum(bool(events) for events in EVENTS)


def test_pytorch_lifestream_makes_tensors_of_every_list_and_numbers_of_the_rest(folder: Path) -> None:
    records = list(ParquetDataset(ParquetFiles(str(folder))))
    assert len(records) == USERS
    dtypes = {name: getattr(value, "dtype", type(value)) for name, value in records[0].items()}
    assert dtypes.pop("user_id") in (int, np.int64)
    assert dtypes.pop("as_of") in (int, np.int64)
    ints = dict.fromkeys([*SIZES, "amount_missing"], torch.int32)
    assert dtypes == {"event_time": torch.int64, "amount": torch.float64, **ints}
    by_user = {one["user_id"]: one for one in records}
    for user, events in enumerate(EVENTS):
        if events:
            expected = record(events)
            assert all(torch.equal(by_user[user][n], expected[n]) for n in ("event_time", "amount_missing", *SIZES))
            close(by_user[user]["amount"], expected["amount"], atol=0.005 + 1e-9)


def script(name: str, folder: Path, optimizer: Any) -> tuple[pl.LightningModule, Any]:
    """A pytorch-lifestream script; CoLES and GUR differ in the two statements here."""
    files = ParquetFiles(str(folder))
    trx = trx_encoder(numeric_values={"amount": "log"}, use_batch_norm=True)
    if name == "CoLES":
        module = CoLESModule(seq_encoder=RnnSeqEncoder(trx, hidden_size=6, type="gru"), **optimizer)
        data = ColesIterableDataset(ParquetDataset(files), splitter=SampleSlices(3, 2, 10))
    else:
        module = GURModule(seq_encoder=AutoEncoderSeqEncoder(trx, latent_dim=6), **optimizer)
        data = GURIterableDataset(ParquetDataset(files))
    return module, data


@pytest.mark.parametrize("name", ["CoLES", "GUR"])
@pytest.mark.filterwarnings("ignore")  # Lightning's and pytorch-lifestream's own
def test_a_script_trains_one_epoch_on_the_folder_unchanged(name: str, folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    optimizer = {
        "optimizer_partial": partial(torch.optim.Adam, lr=0.01),
        "lr_scheduler_partial": partial(torch.optim.lr_scheduler.StepLR, step_size=5, gamma=0.9),
    }
    module, data = script(name, folder, optimizer)
    before = {n: p.clone() for n, p in module.named_parameters()}
    trainer = pl.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path)},
        **{"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False},
        num_sanity_val_steps=0,
    )
    trainer.fit(module, PtlsDataModule(train_data=data, train_batch_size=16, valid_data=data, valid_batch_size=16))
    assert torch.isfinite(trainer.callback_metrics["loss"])
    assert f"valid/{module.metric_name}" in trainer.callback_metrics
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert "_seq_encoder.trx_encoder.embeddings.mcc.weight" in moved
    batch = next(iter(DataLoader(GURIterableDataset(ParquetDataset(ParquetFiles(str(folder)))), 8, collate_fn=collate)))
    module.eval()
    embeddings = module(batch[0])
    assert embeddings.shape == (8, 6)
    assert torch.equal(embeddings, module.seq_encoder(batch[0]))


def test_a_module_embeds_what_a_loader_gives_and_what_pytorch_lifestream_loads_for_inference(folder: Path) -> None:
    module = GURModule(trained(as_of=AS_OF)).eval()
    data = GURDataset(MemoryMapDataset(ParquetDataset(ParquetFiles(str(folder)))))
    by_loader = torch.cat([module(batch) for batch in DataLoader(data, 7, collate_fn=data.collate_fn)])
    bare = list(ParquetDataset(ParquetFiles(str(folder))))
    loaded = inference_data_loader(bare, batch_size=7)
    close(torch.cat([module.seq_encoder(batch) for batch in loaded]), by_loader, atol=1e-6)
    assert by_loader.shape == (USERS, 6)
    assert len(data) == USERS


def test_the_weights_travel_without_what_trained_them(tmp_path: Path) -> None:
    seq_encoder = trained()
    torch.save(seq_encoder.state_dict(), tmp_path / "weights.pt")
    other = encoder().eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(batch_of(RECORDS)), seq_encoder(batch_of(RECORDS)))
