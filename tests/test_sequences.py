"""Sequences on Spark: one row per user, sorted, nothing from the future, the same rows however the events lie."""

import random
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.errors import ConfigError, SnapshotError, TableError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import Manifest, SequenceManifest
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.declare.windows import Window
from gur_spark.lifestream import AutoEncoderSeqEncoder, GURIterableDataset
from gur_spark.models.kind import Form
from gur_spark.snapshots import making, sequence_rows
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.files import read_manifest, read_vocabulary_ref
from gur_spark.snapshots.sequence_rows import SequenceRows, file_by_file, whole_users
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.snapshots.stale import commands_for, stale_snapshots
from gur_spark.snapshots.visible import Snapshot, visible_snapshots
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from jobs import sequences as job
from tests.aggregate_data import tiny_manifest
from tests.test_snapshots import AS_OF, EVENTS, MIDNIGHT, Event, event, log, new_run, run_id, weekly, write

pytestmark = pytest.mark.both_engines

MIDNIGHT_S = int(MIDNIGHT.timestamp())
EARLIER = AS_OF - timedelta(days=30)


@pytest.fixture
def configure(make_config: Any) -> Any:
    """A configuration with these keys of ``sequences``; all events of 180 days without them."""

    def configured(**keys: Any) -> Any:
        return make_config({"vocabulary": {"min_count": 1}, "sequences": {"max_events": None, **keys}})

    return configured


@pytest.fixture
def config(configure: Any) -> Any:
    return configure()


def made(tables: Tables, config: Any, events: Sequence[Event] = (), files: int = 1, **options: Any) -> Snapshot:
    """The snapshot of these events, or of those that are there."""
    if events:
        write(tables, events, files)
    [snapshot] = sequence_snapshots(tables, config, [AS_OF], run_id(), **options).snapshots
    return snapshot


def rows_of(snapshot: Snapshot) -> dict[Any, dict[str, Any]]:
    """The rows by user, in the files as pytorch-lifestream looks for them."""
    files = sorted(Path(snapshot.data).glob("*.parquet"))
    return {row.pop("user_id"): row for file in files for row in pq.read_table(file).to_pylist()}


def events_of(snapshot: Snapshot) -> int:
    return sum(len(row["event_time"]) for row in rows_of(snapshot).values())


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
    snapshot = made(tables, config, events)
    ids = ids_of(tables)
    assert rows_of(snapshot) == plain(events, ids)
    assert snapshot.rows == len(rows_of(snapshot))
    types = {c.name: c.dtype for c in snapshot.manifest().columns}
    arrow = {"array<long>": "list<element: int64>", "array<int>": "list<element: int32>", "long": "int64"}
    file = next(Path(snapshot.data).glob("*.parquet"))
    assert {f.name: str(f.type) for f in pq.read_schema(file)} == {
        name: arrow.get(dtype, "list<element: double>") for name, dtype in types.items()
    }
    vocabulary = read_vocabulary_ref(snapshot.path)
    assert vocabulary.sizes == {"mcc": max(ids.values()) + 1}
    assert (vocabulary.version, vocabulary.hash) == (snapshot.vocabulary_version, snapshot.vocabulary_hash)


@pytest.mark.usefixtures("vocabulary")
def test_partitions_row_order_and_files_change_no_row(
    spark: Any, tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = log()
    expected = made(tables, config, events).checksum
    # Workers that are processes of their own do not see this; Sail's do.
    monkeypatch.setattr(sequence_rows, "FILE_EVENTS", 50)
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
def test_future_late_and_too_old_events_change_nothing(tables: Tables, config: Any, configure: Any) -> None:
    events = log()
    expected = made(tables, config, events)
    injected = [
        event(1, timedelta(0), "a", 5),
        event(99, -timedelta(microseconds=1), "a", 5),
        event(3, timedelta(days=180, microseconds=1), "b", 5),
        event(4, timedelta(days=2), "c", 5, landed=AS_OF),
    ]
    assert made(tables, config, events + injected).checksum == expected.checksum
    later = made(tables, config, known_at=MIDNIGHT + timedelta(days=1))
    assert events_of(later) == events_of(expected) + 1
    lifetime = made(tables, configure(window="lifetime"))
    old = [e for e in events if MIDNIGHT - e[1] > timedelta(days=180)]
    assert events_of(lifetime) == events_of(expected) + len(old) + 1
    week = made(tables, configure(window=7))
    assert events_of(week) == len([e for e in events if timedelta(0) < MIDNIGHT - e[1] <= timedelta(days=7)])
    assert len({s.manifest_hash for s in (expected, lifetime, week)}) == 3


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_of_a_user_of_many_events_the_newest_are_kept(tables: Tables, configure: Any) -> None:
    events = log()
    snapshot = made(tables, configure(max_events=5), events)
    assert rows_of(snapshot) == plain(events, ids_of(tables), max_events=5)
    assert snapshot.manifest(SequenceManifest).max_events == 5


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_only_the_chosen_fields_are_taken(tables: Tables, configure: Any) -> None:
    events = log(events=60)
    only_mcc = plain(events, ids_of(tables))
    for row in only_mcc.values():
        del row["amount"], row["amount_missing"]
        # Events at one moment are in the order of the values that are taken.
        pairs = sorted(zip(row["event_time"], row["mcc"], strict=True))
        row["mcc"] = [mcc for _, mcc in pairs]
    assert rows_of(made(tables, configure(fields=["mcc"]), events)) == only_mcc
    with pytest.raises(ConfigError, match=r"sequences.fields: no field 'mc' of events; .*did you mean 'mcc'"):
        configure(fields=["mc"])


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_user_ids_may_be_text(tables: Tables, make_config: Any) -> None:
    changes = {"fields": {"user_id": {"column": "user", "type": "string"}}, "sequences": {"max_events": 3}}
    config = make_config({"vocabulary": {"min_count": 1}} | changes)
    events = [(f"ü{user}", *rest) for user, *rest in log(events=60)]
    types = pa.schema([pa.field("user_id", pa.string()), *list(EVENTS)[1:]])
    rows = pa.Table.from_pylist([dict(zip(types.names, one, strict=True)) for one in events], schema=types)
    write_deltalake(tables.folder("events"), rows)
    snapshot = made(tables, config)
    assert rows_of(snapshot) == plain(events, ids_of(tables), max_events=3)
    assert snapshot.manifest().columns[0].dtype == "string"
    data = ParquetDataset(ParquetFiles(snapshot.data))
    padded, _ = GURIterableDataset.collate_fn(list(GURIterableDataset(data)))
    assert sorted(padded.payload["user_id"]) == sorted({user for user, *_ in events} & rows_of(snapshot).keys())


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
    monkeypatch.setattr(sequence_rows, "FILE_EVENTS", 4)
    manifest = sequence_manifest(tiny_manifest(numeric=(), categorical=()), Window(days=180))
    rows = SequenceRows(manifest=manifest, numeric=(), as_of=AS_OF)
    users = [1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]
    tables = [rows.of(file) for file in file_by_file(whole_users(batches_of(users, [2, 4, 6, 8])))]
    assert [table["user_id"].to_pylist() for table in tables] == [[1, 2], [3], [4]]
    assert [len(times) for table in tables for times in table["event_time"].to_pylist()] == [3, 1, 6, 1]
    assert not list(file_by_file(iter([])))


def test_what_is_missing_is_said(tables: Tables, config: Any, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="run the ingest job first"):
        made(tables, config)
    with pytest.raises(TableError, match="run the vocabulary job first"):
        made(tables, config, log())
    with pytest.raises(SnapshotError, match=r"manifest\.json does not exist: .* is not a snapshot"):
        read_manifest(str(tmp_path))
    storage.write_text(str(tmp_path / "manifest.json"), "{}")
    with pytest.raises(SnapshotError, match="is damaged: manifest has format None"):
        read_manifest(str(tmp_path))
    with pytest.raises(SnapshotError, match=r"vocabulary\.json does not exist"):
        read_vocabulary_ref(str(tmp_path))


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_a_date_without_events_leaves_nothing(tables: Tables, make_config: Any, config: Any) -> None:
    write(tables, log())
    with pytest.raises(SnapshotError, match=r"no event in the 180 days before 2020-01-01 .*; events run from 2023"):
        sequence_snapshots(tables, config, [date(2020, 1, 1)], run_id())
    strict = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"landing_gap_days": 2}})
    with pytest.raises(SnapshotError, match="landing_gap_days allows 2"):
        sequence_snapshots(tables, strict, [AS_OF + timedelta(days=20)], run_id())
    assert not Path(tables.folder("sequences")).exists()
    assert not tables.exists("snapshots")


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_what_was_made_already_is_not_made_again(tables: Tables, config: Any, configure: Any) -> None:
    write(tables, log())
    runs = [run_id() for _ in range(4)]
    first = sequence_snapshots(tables, config, [AS_OF, EARLIER], runs[0]).snapshots
    assert [s.as_of for s in first] == [EARLIER, AS_OF]
    assert [s.path for s in first] == [tables.folder("sequences", str(s.as_of), runs[0]) for s in first]
    assert sequence_snapshots(tables, config, [AS_OF, EARLIER], runs[1]).snapshots == first
    assert not any(Path(tables.folder("sequences", str(s.as_of), runs[1])).exists() for s in first)
    # Made again, the content is the same, so the snapshot that is visible stays.
    assert sequence_snapshots(tables, config, [AS_OF], runs[2], again=True).snapshots == first[1:]
    assert not Path(tables.folder("sequences", str(AS_OF), runs[2])).exists()
    # Declared otherwise, the snapshot is another one.
    [fewer] = sequence_snapshots(tables, configure(max_events=2), [AS_OF], runs[3]).snapshots
    assert fewer.path != first[1].path
    assert visible_snapshots(tables, Form.SEQUENCES) == [*first, fewer]
    assert find_snapshot(tables, configure(max_events=2), AS_OF, Form.SEQUENCES) == fewer
    assert find_snapshot(tables, config, AS_OF, Form.SEQUENCES) == first[1]
    assert find_snapshot(tables, config, AS_OF, Form.SEQUENCES, manifest=fewer.manifest()) == fewer


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_a_backfill_that_was_killed_goes_on_and_clean_takes_what_it_left(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tables, log())
    write_description = making.write_description

    def killed(folder: str, *rest: Any) -> None:
        if str(AS_OF) in folder:
            raise KeyboardInterrupt
        write_description(folder, *rest)

    monkeypatch.setattr(making, "write_description", killed)
    run = run_id()
    with pytest.raises(KeyboardInterrupt):
        sequence_snapshots(tables, config, weekly(2), run)
    assert [s.as_of for s in visible_snapshots(tables)] == weekly(2)[:1]
    monkeypatch.undo()
    left = tables.folder("sequences", str(AS_OF), run)
    snapshots = sequence_snapshots(tables, config, weekly(2), run_id()).snapshots
    assert run in snapshots[0].path
    later = datetime.now(UTC) + timedelta(hours=1)
    assert clean(tables, later) == [left]
    assert all(rows_of(snapshot) for snapshot in snapshots)


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_landings_that_come_later_make_the_sequences_they_reach_stale(tables: Tables, configure: Any) -> None:
    write(tables, log())
    config = configure(window=30)
    sequence_snapshots(tables, config, [EARLIER, AS_OF], run_id())
    sequence_snapshots(tables, config, [EARLIER], run_id(), known_at=MIDNIGHT)

    def commands(landing: str) -> list[str]:
        return commands_for(tables, stale_snapshots(tables, config, [landing]), config)

    as_known = f"sequences --as-of {EARLIER} --known-at 2024-07-01T00:00:00.000000"
    assert commands("2024-06-20") == [f"sequences --as-of {AS_OF}", as_known]
    assert commands("2024-05-20") == [f"sequences --as-of {EARLIER}", as_known]
    assert commands("2024-04-01") == []
    assert commands("bulk") == [f"sequences --as-of {EARLIER} {AS_OF}", as_known]
    # A second pipeline's sequences need its configuration.
    [wide] = sequence_snapshots(tables, configure(window=60), [AS_OF], run_id()).snapshots
    other = f"sequences --as-of {AS_OF} (with the configuration of manifest {wide.manifest_hash})"
    assert commands("2024-06-20") == [f"sequences --as-of {AS_OF}", as_known, other]


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_a_manifest_of_another_form_or_that_was_altered_is_refused(tables: Tables, config: Any) -> None:
    snapshot = made(tables, config, log())
    with pytest.raises(SnapshotError, match="expected a Manifest, got a SequenceManifest"):
        snapshot.manifest(Manifest)
    with pytest.raises(SnapshotError, match=r"manifest .*, expected other"):
        replace(snapshot, manifest_hash="other").manifest()
    file = storage.join(snapshot.path, "manifest.json")
    storage.write_text(file, storage.read_text(file).replace('"array<double>"', '"array<long>"'))
    with pytest.raises(SnapshotError, match="it was altered"):
        snapshot.manifest()


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_the_job_makes_the_dates_it_is_asked_for_and_notes_them(tables: Tables, config: Any) -> None:
    write(tables, log())
    parser = ArgumentParser()
    job.options(parser)
    run = new_run()
    with pytest.raises(ConfigError, match="no as-of date: give --as-of DATE"):
        job.stage(tables, config, parser.parse_args([]), run)
    job.stage(tables, config, parser.parse_args(["--from", "2024-06-01", "--to", "2024-07-01", "--every", "30d"]), run)
    snapshots = visible_snapshots(tables, Form.SEQUENCES)
    assert [s.as_of for s in snapshots] == [EARLIER, AS_OF]
    assert run.outputs == {str(s.as_of): s.path for s in snapshots}
    assert run.counts == {f"rows {s.as_of}": s.rows for s in snapshots}
    assert run.inputs["events"].startswith("events ")


@pytest.mark.any_engine
@pytest.mark.usefixtures("vocabulary")
def test_the_sequences_and_the_aggregates_of_a_date_give_one_embedding(tables: Tables, config: Any) -> None:
    write(tables, log())
    snapshot = aggregate_snapshot(tables, config, AS_OF, run_id())
    sequences = made(tables, config)
    sizes = read_vocabulary_ref(sequences.path).sizes
    layout = Layout.of(snapshot.manifest(Manifest), {"mcc": sizes["mcc"]})
    torch.manual_seed(0)
    trx_encoder = TrxEncoder(
        embeddings={"mcc": {"in": sizes["mcc"], "out": 4}}, numeric_values={"amount": "identity"}, use_batch_norm=False
    )
    seq_encoder = AutoEncoderSeqEncoder(trx_encoder, latent_dim=6).eval()
    data = GURIterableDataset(ParquetDataset(ParquetFiles(sequences.data)))
    padded, _ = data.collate_fn(list(data))
    embeddings = dict(zip(padded.payload["user_id"].tolist(), seq_encoder(padded), strict=True))
    rows = pq.read_table(snapshot.data).combine_chunks().to_batches()[0]
    expected = seq_encoder.encode_aggregates(to_batch(rows, layout), layout)
    found = torch.stack([embeddings[user] for user in rows["user_id"].to_pylist()])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(embeddings) == snapshot.rows == sequences.rows


def test_names_that_pytorch_lifestream_reads_otherwise_are_refused() -> None:
    window = Window(days=180)
    for names, said in ((["target_shop"], "no sequence but a label"), (["amount_missing"], "two columns")):
        with pytest.raises(ConfigError, match=said):
            sequence_manifest(tiny_manifest(categorical=names), window)
    with pytest.raises(ConfigError, match="a time of its own"):
        sequence_manifest(tiny_manifest(numeric=["trans_time"]), window)


def test_the_hash_is_of_what_the_columns_mean(make_config: Any) -> None:
    aggregates = make_config().manifest()
    manifest = sequence_manifest(aggregates, Window(days=30), 100)
    assert SequenceManifest.from_json(manifest.to_json()) == manifest
    others = [
        sequence_manifest(aggregates, Window(days=31), 100),
        sequence_manifest(aggregates, Window(days=30)),
        sequence_manifest(aggregates, Window(days=30), 100, ["mcc"]),
        sequence_manifest(tiny_manifest(categorical=["mcc"], user_id_type="string"), Window(days=30), 100),
    ]
    assert len({m.hash for m in [manifest, *others]}) == 5
