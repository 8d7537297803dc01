"""The loader of sequences: events as they lie in the rows, every user once per epoch, equal epochs for equal seeds."""

import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gur_spark.batches import sequence_streams
from gur_spark.batches.padded import Sequences, buckets, padded
from gur_spark.batches.sequence_streams import SequenceDataset, split_sides
from gur_spark.batches.sequences import TIMES, Events, SequenceLayout, to_events
from gur_spark.batches.shares import assign, split_evenly, split_like
from gur_spark.errors import ModelError, SnapshotError, TrainingError
from gur_spark.splits import user_hash, validation_side
from tests.sequence_data import AS_OF, DAY, SIZES, manifest, random_users, to_rows, write_snapshot

LAYOUT = SequenceLayout.of(manifest(), SIZES)


def plain_numbers(row: dict[str, Any]) -> list[list[float]]:
    """The numbers of each event of a row, one at a time."""
    made = []
    before = row["event_time"][0]
    for time, amount, missing in zip(row["event_time"], row["amount"], row["amount_missing"], strict=True):
        moment = datetime.fromtimestamp(time, UTC)
        # A week of hours that begins on Thursday, as 1970 did.
        hour, weekday = moment.hour / 24, ((moment.weekday() - 3) % 7 * 24 + moment.hour) / (7 * 24)
        circle = [f(2 * math.pi * x) for x in (hour, weekday) for f in (math.sin, math.cos)]
        age, gap = (row["as_of"] - time) / DAY, (time - before) / DAY
        scaled = math.copysign(math.log1p(abs(amount)), amount)
        made.append([math.log1p(age), math.log1p(gap), *circle, scaled, float(missing == 2)])
        before = time
    return made


def test_events_hold_the_ids_and_numbers_of_the_rows() -> None:
    rows = to_rows(random_users(20, seed=1))
    events = to_events(rows, LAYOUT)
    assert LAYOUT.numbers == [*TIMES, "amount", "amount_missing"]
    expected = [number for row in rows.to_pylist() for number in plain_numbers(row)]
    np.testing.assert_allclose(events.numbers_ND, expected, atol=1e-6)
    for position, name in enumerate(SIZES):
        assert events.ids_CN[position].tolist() == [i for row in rows.to_pylist() for i in row[name]]
    assert events.lengths_B.tolist() == [len(row["mcc"]) for row in rows.to_pylist()]


def test_a_number_that_is_a_logarithm_already_stays_as_it_is() -> None:
    columns = [
        c.model_copy(update={"unit": "signed_log1p(amount)"}) if c.name == "amount" else c for c in manifest().columns
    ]
    layout = SequenceLayout.of(manifest(columns=tuple(columns)), SIZES)
    rows = to_rows(random_users(3))
    found = to_events(rows, layout).numbers_ND[:, layout.numbers.index("amount")]
    np.testing.assert_allclose(found, rows.column("amount").flatten(), rtol=1e-6)


def test_a_slice_of_rows_gives_the_events_of_that_slice() -> None:
    rows = to_rows(random_users(9))
    some = to_events(rows.slice(3, 4), LAYOUT)
    assert some.ids_CN[0].tolist() == [i for row in rows.slice(3, 4).to_pylist() for i in row["mcc"]]
    assert some.lengths_B.tolist() == to_events(rows, LAYOUT).lengths_B[3:7].tolist()


def replaced(rows: pa.RecordBatch, name: str, value: Any) -> pa.RecordBatch:
    """The rows with another list for the first user."""
    position = rows.schema.get_field_index(name)
    values = [value, *rows.column(name).to_pylist()[1:]]
    return rows.set_column(position, name, pa.array(values, rows.schema.field(name).type))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mcc", [9] * 3, r"field 'mcc': ids from \d to 9, the model's vocabulary has 0 to 8"),
        ("mcc", [-1] * 3, r"field 'mcc': ids from -1 to"),
        ("mcc", [1] * 2, "column 'mcc' has lists of other lengths than 'event_time'"),
        ("amount", None, "column 'amount' has 1 nulls"),
        ("event_time", [5, 4, 6], "events are not in the order of their time"),
        ("event_time", [5, 6, 2**33], "1 events are at or after their row's as_of"),
        ("event_time", [], "1 users have no events"),
    ],
)
def test_rows_that_are_not_of_the_snapshot_are_refused(name: str, value: Any, message: str) -> None:
    rows = to_rows(random_users(4, longest=3, shortest=3))
    with pytest.raises(ModelError, match=message):
        to_events(replaced(rows, name, value), LAYOUT)


def test_a_missing_column_and_a_field_without_vocabulary_are_refused() -> None:
    with pytest.raises(ModelError, match="column 'mcc' is not in the snapshot"):
        to_events(to_rows(random_users(2)).drop_columns(["mcc"]), LAYOUT)
    with pytest.raises(ModelError, match=r"field 'mcc' has no vocabulary; available: \{'channel': 5\}"):
        SequenceLayout.of(manifest(), {"channel": 5})


runs = st.lists(st.tuples(st.integers(0, 7), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12)


@settings(deadline=None)
@given(runs)
def test_parts_are_the_runs_of_events_that_are_asked_for(asked: list[tuple[int, float, float]]) -> None:
    events = to_events(to_rows(random_users(8, seed=2)), LAYOUT)
    users = np.array([user for user, _, _ in asked])
    lengths = np.array([1 + int(share * (events.lengths_B[user] - 1)) for user, share, _ in asked])
    starts = [
        int(events.offsets[user] + at * (events.lengths_B[user] - length))
        for (user, _, at), length in zip(asked, lengths, strict=True)
    ]
    found = events.parts(users, np.array(starts), lengths)
    expected = [events.ids_CN[:, s : s + n] for s, n in zip(starts, lengths, strict=True)]
    np.testing.assert_array_equal(found.ids_CN, np.concatenate(expected, axis=1))
    np.testing.assert_array_equal(
        found.numbers_ND, np.concatenate([events.numbers_ND[s : s + n] for s, n in zip(starts, lengths, strict=True)])
    )
    assert found.lengths_B.tolist() == lengths.tolist()
    assert found.users_B.tolist() == events.users_B[users].tolist()


def test_padding_puts_each_sequence_on_a_row_and_zeros_behind_it() -> None:
    lengths = torch.tensor([2, 4, 1])
    encoded = torch.arange(1.0, 15.0).view(7, 2)
    expected = torch.nn.utils.rnn.pad_sequence(list(encoded.split(lengths.tolist())), batch_first=True)
    assert torch.equal(padded(encoded, lengths), expected)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 6))
def test_buckets_hold_every_sequence_once_in_order(lengths: list[int], count: int) -> None:
    encoded = torch.arange(sum(lengths), dtype=torch.float32).unsqueeze(1)
    groups = list(buckets(encoded, torch.tensor(lengths), count))
    assert len(groups) == min(count, len(lengths))
    found = [row[:length, 0] for rows, own in groups for row, length in zip(rows, own.tolist(), strict=True)]
    assert torch.equal(torch.cat(found), encoded[:, 0])
    assert [n for _, own in groups for n in own.tolist()] == lengths
    assert all(rows.shape[1] == own.max() for rows, own in groups)


def test_tensors_keep_their_lengths_on_cpu() -> None:
    batch = Sequences.of(to_events(to_rows(random_users(3)), LAYOUT)).to("meta")
    assert (batch.ids_CN.device.type, batch.numbers_ND.device.type, batch.lengths_B.device.type) == (
        "meta",
        "meta",
        "cpu",
    )


# Shares


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 6))
def test_row_groups_are_shared_and_no_part_has_more_than_a_group_above_another(rows: list[int], parts: int) -> None:
    shares = assign(rows, parts)
    assert sorted(position for share in shares for position in share) == list(range(len(rows)))
    held = [sum(rows[position] for position in share) for share in shares]
    assert max(held) - min(held) <= max(rows)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 9))
def test_even_sizes_differ_by_one_at_most(total: int, parts: int) -> None:
    sizes = split_evenly(total, parts)
    assert (sum(sizes), len(sizes)) == (total, parts)
    assert sizes[0] - sizes[-1] in (0, 1)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 60))
def test_batches_are_split_like_the_rows_and_nobody_has_none(weights: list[int], more: int) -> None:
    found = split_like(len(weights) + more, weights)
    assert sum(found) == len(weights) + more
    assert min(found) >= 1


# Epochs


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", random_users(150), files=3)


def names(events: Events, generator: np.random.Generator) -> list[int]:
    """A batch as its users' hashes, with a number that tells generators apart."""
    return [int(generator.integers(1 << 30)), *events.users_B.tolist()]


def epoch(
    snapshots: list[str], *, epoch: int = 0, part: tuple[int, int] = (0, 1), batch_size: int = 20, seed: int = 1,
    validation: bool = False, workers: int = 0, shuffle: bool = True,
) -> list[list[int]]:  # fmt: skip
    side = split_sides(snapshots, 0.2, seed)[validation]
    data = SequenceDataset(side, LAYOUT, batch_size, names, seed=(seed, epoch), shuffle=shuffle, part=part, least=2)
    batches = list(DataLoader(data, batch_size=None, num_workers=workers))
    assert len(batches) == len(data)
    return [[int(name) for name in batch] for batch in batches]


def hashes(users: range, seed: int, validation: bool) -> Counter[int]:
    ids = np.array(users)
    side = validation_side(ids, 0.2, seed) == validation
    return Counter(user_hash(ids[side], "sequences").tolist())


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 5])
def test_every_training_user_is_in_one_batch_of_one_part(snapshot: str, parts: int, number: int) -> None:
    found = [epoch([snapshot], epoch=number, part=(k, parts)) for k in range(parts)]
    assert Counter(user for part in found for batch in part for user in batch[1:]) == hashes(range(150), 1, False)
    assert len({len(part) for part in found}) == 1
    for part in found:
        assert max(map(len, part)) - min(map(len, part)) <= 1


def test_validation_users_are_the_others_and_come_as_they_lie(snapshot: str) -> None:
    found = epoch([snapshot], validation=True, shuffle=False)
    users = [user for batch in found for user in batch[1:]]
    assert users == list(hashes(range(150), 1, True))


def test_the_same_seed_gives_the_same_epoch_and_another_epoch_another_order(snapshot: str) -> None:
    assert epoch([snapshot], epoch=3) == epoch([snapshot], epoch=3)
    assert epoch([snapshot], epoch=3, part=(1, 2)) == epoch([snapshot], epoch=3, part=(1, 2))
    assert epoch([snapshot], epoch=3) != epoch([snapshot], epoch=4)
    assert epoch([snapshot], epoch=3, part=(0, 2))[0][0] != epoch([snapshot], epoch=3, part=(1, 2))[0][0]


def test_a_small_buffer_gives_every_user_too(snapshot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_streams, "BUFFER_EVENTS", 300)
    monkeypatch.setattr(sequence_streams, "READ_ROWS", 7)
    found = epoch([snapshot], batch_size=16)
    assert Counter(user for batch in found for user in batch[1:]) == hashes(range(150), 1, False)
    assert set(map(len, found)) <= {16, 17}


def test_users_of_all_row_groups_meet_in_a_batch(snapshot: str) -> None:
    first = set(hashes(range(50), 1, False))
    for batch in epoch([snapshot], batch_size=40):
        assert first & set(batch[1:])
        assert set(batch[1:]) - first


def test_workers_share_the_row_groups(snapshot: str) -> None:
    found = epoch([snapshot], part=(0, 2), workers=2)
    alone = epoch([snapshot], part=(0, 2))
    assert sorted(user for batch in found for user in batch[1:]) == sorted(u for batch in alone for u in batch[1:])
    assert len(found) == len(alone)


def test_a_user_of_two_snapshots_is_on_one_side_and_has_one_hash(snapshot: str, tmp_path: Path) -> None:
    other = write_snapshot(tmp_path / "other", random_users(150, seed=9), as_of=AS_OF.replace(day=2))
    found = Counter(user for batch in epoch([snapshot, other]) for user in batch[1:])
    assert found == Counter(dict.fromkeys(hashes(range(150), 1, False), 2))


def test_a_snapshot_without_rows_and_a_side_without_users_are_refused(snapshot: str, tmp_path: Path) -> None:
    empty = write_snapshot(tmp_path / "empty", [])
    with pytest.raises(SnapshotError, match="empty is empty: there is nobody to train on"):
        split_sides([snapshot, empty], 0.2, 1)
    with pytest.raises(TrainingError, match="no user is on the validation side: 150 rows"):
        split_sides([snapshot], 0.0001, 1)
    with pytest.raises(TrainingError, match="no user is on the training side: 150 rows"):
        split_sides([snapshot], 0.9999, 1)


def test_too_few_users_for_a_batch_or_a_process_are_refused(tmp_path: Path) -> None:
    few = write_snapshot(tmp_path / "few", random_users(12), group_rows=6)
    with pytest.raises(TrainingError, match=r"a batch needs 2 users, and .* would have 0 .*training\.processes=3"):
        epoch([few], part=(0, 3))
    with pytest.raises(TrainingError, match="a batch needs 2 users, and a process would have 11 for 11 batches"):
        epoch([few], batch_size=1)
