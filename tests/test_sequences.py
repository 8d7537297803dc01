"""Sequences on Spark: one row per user, sorted, nothing from the future, the same rows however the events lie."""

import random
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import write_deltalake
from ptls.data_load.datasets import ParquetDataset, ParquetFiles
from ptls.nn import TrxEncoder

from gur_spark import schema, storage
from gur_spark.batches.aggregates import Layout, to_batch
from gur_spark.errors import ConfigError, SnapshotError, TableError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import SequenceManifest, sequence_columns
from gur_spark.features.declare.spec import Window
from gur_spark.lifestream import AutoEncoderSeqEncoder, GURIterableDataset
from gur_spark.snapshots import sequences
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.sequences import Rows, read_manifest, whole_users, write_sequences
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from jobs import sequences as job
from tests.aggregate_data import tiny_manifest
from tests.test_snapshots import AS_OF, EVENTS, MIDNIGHT, Event, event, log, new_run, write

pytestmark = pytest.mark.both_engines

MIDNIGHT_S = int(MIDNIGHT.timestamp())


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}})


def made(tables: Tables, config: Any, events: Sequence[Event], files: int = 1, **options: Any) -> SequenceManifest:
    write(tables, events, files)
    return write_sequences(tables, config, AS_OF, new_run(), **options)[1]


def rows_of(folder: str) -> dict[Any, dict[str, Any]]:
    """The rows by user, in the files as pytorch-lifestream looks for them."""
    files = sorted(Path(folder).glob("*.parquet"))
    return {row.pop("user_id"): row for file in files for row in pq.read_table(file).to_pylist()}


def plain(events: Sequence[Any], ids: dict[str | None, int], max_events: int | None = None) -> dict[Any, Any]:
    """The naive way: sort all rows, then append each to its user's lists."""
    rows: dict[Any, Any] = defaultdict(lambda: defaultdict(list))
    none_first = [(u, t, ids[mcc], (amount is not None, amount or 0)) for u, t, _, mcc, amount in events]
    for user, time, mcc, (there, amount) in sorted(none_first):
        if timedelta(0) < MIDNIGHT - time <= timedelta(days=180):
            rows[user]["event_time"].append(int(time.timestamp() // 1))
            rows[user]["mcc"].append(mcc)
            rows[user]["amount"].append(amount / 100)
            rows[user]["amount_missing"].append(1 if there else 2)
    first = -max_events if max_events else None
    return {
        user: {"as_of": MIDNIGHT_S} | {name: values[first:] for name, values in lists.items()}
        for user, lists in rows.items()
    }


def ids_of(tables: Tables) -> dict[str | None, int]:
    return {row.value: row.id for row in read_vocabulary(tables).frame.collect()} | {None: schema.MISSING_ID}


@pytest.mark.usefixtures("vocabulary")
def test_sequences_are_what_plain_python_makes_of_all_rows(tables: Tables, config: Any) -> None:
    events = log()
    # Several at one moment, which only their values put in order.
    events += [event(1, timedelta(days=3), mcc, amount) for mcc in (None, "b", "a") for amount in (7, None, -7)]
    write(tables, events)
    run = new_run()
    folder, manifest = write_sequences(tables, config, AS_OF, run)
    assert rows_of(folder) == plain(events, ids_of(tables))
    assert folder == run.outputs[f"sequences {AS_OF}"] == tables.folder("sequences", "2024-07-01", run.id)
    assert read_manifest(folder) == manifest
    assert (manifest.rows, manifest.events) == (run.counts[f"users {AS_OF}"], run.counts[f"events {AS_OF}"])
    assert manifest.events == sum(len(row["mcc"]) for row in rows_of(folder).values())
    types = {c.name: c.dtype for c in manifest.columns}
    arrow = {"array<long>": "list<element: int64>", "array<int>": "list<element: int32>", "long": "int64"}
    file = next(Path(folder).glob("*.parquet"))
    assert {f.name: str(f.type) for f in pq.read_schema(file)} == {
        name: arrow.get(dtype, "list<element: double>") for name, dtype in types.items()
    }
    assert next(c.ids for c in manifest.columns if c.name == "mcc") == max(ids_of(tables).values()) + 1


@pytest.mark.usefixtures("vocabulary")
def test_partitions_row_order_and_files_change_no_row(
    spark: Any, tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = log()
    expected = made(tables, config, events).checksum
    # Workers that are processes of their own do not see this; Sail's do.
    monkeypatch.setattr(sequences, "FILE_EVENTS", 50)
    for partitions in ("1", "7"):
        random.shuffle(events)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        try:
            assert made(tables, config, events, files=int(partitions)).checksum == expected
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", "2")
            spark.conf.set("spark.sql.adaptive.enabled", "true")


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_future_late_and_too_old_events_change_nothing(tables: Tables, config: Any) -> None:
    events = log()
    expected = made(tables, config, events)
    injected = [
        event(1, timedelta(0), "a", 5),
        event(99, -timedelta(microseconds=1), "a", 5),
        event(3, timedelta(days=180, microseconds=1), "b", 5),
        event(4, timedelta(days=2), "c", 5, landed=AS_OF),
    ]
    assert made(tables, config, events + injected).checksum == expected.checksum
    later = made(tables, config, events + injected, known_at=MIDNIGHT + timedelta(days=1))
    assert later.events == expected.events + 1
    lifetime = made(tables, config, events + injected, window=Window(days=None))
    old = [e for e in events if MIDNIGHT - e[1] > timedelta(days=180)]
    assert lifetime.events == expected.events + len(old) + 1
    week = made(tables, config, events, window=Window(days=7))
    assert week.events == len([e for e in events if timedelta(0) < MIDNIGHT - e[1] <= timedelta(days=7)])


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_of_a_user_of_many_events_the_newest_are_kept(tables: Tables, config: Any) -> None:
    events = log()
    write(tables, events)
    folder, manifest = write_sequences(tables, config, AS_OF, new_run(), max_events=5)
    assert rows_of(folder) == plain(events, ids_of(tables), max_events=5)
    assert manifest.max_events == 5


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_user_ids_may_be_text(tables: Tables, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1}, "fields": {"user_id": {"column": "user", "type": "string"}}})
    events = [(f"ü{user}", *rest) for user, *rest in log(events=60)]
    types = pa.schema([pa.field("user_id", pa.string()), *list(EVENTS)[1:]])
    rows = pa.Table.from_pylist([dict(zip(types.names, one, strict=True)) for one in events], schema=types)
    write_deltalake(tables.folder("events"), rows)
    folder, manifest = write_sequences(tables, config, AS_OF, new_run(), max_events=3)
    assert rows_of(folder) == plain(events, ids_of(tables), max_events=3)
    assert manifest.columns[0].dtype == "string"
    padded, _ = GURIterableDataset.collate_fn(list(GURIterableDataset(ParquetDataset(ParquetFiles(folder)))))
    assert sorted(padded.payload["user_id"]) == sorted({user for user, *_ in events} & rows_of(folder).keys())


def batches_of(users: Sequence[int], cuts: Sequence[int]) -> Iterator[pa.RecordBatch]:
    rows = pa.record_batch({"user_id": pa.array(users), "event_time": pa.array(range(len(users)))})
    for start, end in zip([0, *cuts], [*cuts, len(users)], strict=True):
        yield rows.slice(start, end - start)


@pytest.mark.any_engine
@pytest.mark.parametrize("max_events", [None, 1, 2, 3])
def test_users_stay_whole_wherever_the_batches_are_cut(max_events: int | None) -> None:
    users = [1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    expected = [
        (user, [n for n, u in enumerate(users) if u == user][-(max_events or 99) :]) for user in dict.fromkeys(users)
    ]
    rng = random.Random(0)
    for _ in range(60):
        cuts = sorted(rng.choices(range(len(users) + 1), k=rng.randrange(6)))
        tables = list(whole_users(batches_of(users, cuts), max_events))
        seen = [user for table in tables for user in dict.fromkeys(table["user_id"].to_pylist())]
        assert seen == [1, 2, 3, 4]
        rows = [row for table in tables for row in table.to_pylist()]
        assert [(u, [r["event_time"] for r in rows if r["user_id"] == u]) for u in seen] == expected
    assert not list(whole_users(iter([])))


@pytest.mark.any_engine
def test_a_file_ends_after_so_many_events_and_never_within_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "FILE_EVENTS", 4)
    rows = Rows(manifest=tiny_manifest(numeric=(), categorical=()), as_of=AS_OF)
    users = [1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]
    tables = list(rows.files(whole_users(batches_of(users, [2, 4, 6, 8]))))
    assert [table["user_id"].to_pylist() for table in tables] == [[1, 2], [3], [4]]
    assert [len(times) for table in tables for times in table["event_time"].to_pylist()] == [3, 1, 6, 1]
    assert not list(rows.files(iter([])))


def test_what_is_missing_is_said(tables: Tables, config: Any, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="run the ingest job first"):
        write_sequences(tables, config, AS_OF, new_run())
    write(tables, log())
    with pytest.raises(TableError, match="run the vocabulary job first"):
        write_sequences(tables, config, AS_OF, new_run())
    with pytest.raises(SnapshotError, match=r"has no manifest\.json: not sequences, or a run that was killed"):
        read_manifest(str(tmp_path))
    storage.write_text(str(tmp_path / "manifest.json"), "{}")
    with pytest.raises(SnapshotError, match="is damaged"):
        read_manifest(str(tmp_path))


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_a_date_without_events_leaves_nothing(tables: Tables, make_config: Any, config: Any) -> None:
    write(tables, log())
    with pytest.raises(SnapshotError, match=r"no event in the 180 days before 2020-01-01 .*; events run from 2023"):
        write_sequences(tables, config, date(2020, 1, 1), new_run())
    strict = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"landing_gap_days": 2}})
    with pytest.raises(SnapshotError, match="landing_gap_days allows 2"):
        write_sequences(tables, strict, AS_OF + timedelta(days=20), new_run())
    assert not Path(tables.folder("sequences")).exists()


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_the_job_records_what_it_wrote_and_clean_takes_only_what_a_killed_one_left(tables: Tables, config: Any) -> None:
    write(tables, log())
    parser = ArgumentParser()
    job.options(parser)
    run = new_run()
    with pytest.raises(ConfigError, match="no as-of date: give --as-of DATE"):
        job.stage(tables, config, parser.parse_args([]), run)
    words = ["--as-of", "2024-06-01", "2024-07-01", "--window", "30d", "--max-events", "3"]
    job.stage(tables, config, parser.parse_args(words), run)
    folders = [run.outputs[f"sequences {day}"] for day in ("2024-06-01", "2024-07-01")]
    manifests = [read_manifest(folder) for folder in folders]
    assert [(str(m.as_of), m.days, m.max_events) for m in manifests] == [("2024-06-01", 30, 3), ("2024-07-01", 30, 3)]
    assert run.inputs["events"].startswith("events ")
    later = datetime.now(UTC) + timedelta(hours=1)
    assert clean(tables, later) == []
    Path(folders[0], "manifest.json").unlink()
    assert clean(tables, later) == [folders[0]]


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_the_sequences_and_the_aggregates_of_a_date_give_one_embedding(tables: Tables, config: Any) -> None:
    write(tables, log())
    snapshot = aggregate_snapshot(tables, config, AS_OF, new_run())
    folder, manifest = write_sequences(tables, config, AS_OF, new_run())
    sizes = {column.name: column.ids for column in manifest.columns if column.ids}
    layout = Layout.of(snapshot.manifest(), {"mcc": sizes["mcc"]})
    torch.manual_seed(0)
    trx_encoder = TrxEncoder(
        embeddings={"mcc": {"in": sizes["mcc"], "out": 4}}, numeric_values={"amount": "identity"}, use_batch_norm=False
    )
    seq_encoder = AutoEncoderSeqEncoder(trx_encoder, latent_dim=6).eval()
    data = GURIterableDataset(ParquetDataset(ParquetFiles(folder)))
    padded, _ = data.collate_fn(list(data))
    embeddings = dict(zip(padded.payload["user_id"].tolist(), seq_encoder(padded), strict=True))
    rows = pq.read_table(snapshot.data).combine_chunks().to_batches()[0]
    expected = seq_encoder.encode_aggregates(to_batch(rows, layout), layout)
    found = torch.stack([embeddings[user] for user in rows["user_id"].to_pylist()])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(embeddings) == snapshot.rows == manifest.rows


def test_names_that_pytorch_lifestream_reads_otherwise_are_refused() -> None:
    for names, said in (({"target_shop": 5}, "no sequence but a label"), ({"amount_missing": 5}, "two columns")):
        with pytest.raises(ConfigError, match=said):
            sequence_columns(tiny_manifest(categorical=tuple(names)), names)
    with pytest.raises(ConfigError, match="a time of its own"):
        sequence_columns(tiny_manifest(numeric=["trans_time"]), {})


def test_the_command_line_names_windows_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert (job.window("lifetime").days, job.window("30d").days, job.window("7").days) == (None, 30, 7)
    for wrong in (["--window", "week"], ["--max-events", "0"], ["--max-events", "x"]):
        with pytest.raises(SystemExit):
            job.main(["--config", "conf/demo.yaml", *wrong])
    assert "expected days such as 180d, or lifetime" in capsys.readouterr().err
