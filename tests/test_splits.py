from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gur_spark.splits import held_out, user_hash


def splitmix64(state: int) -> int:
    """The reference in plain Python integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.text(max_size=5))
def test_whole_numbers_hash_as_splitmix64_of_the_id_plus_the_salt(users: list[int], salt: str) -> None:
    number = int.from_bytes(blake2b(salt.encode(), digest_size=8).digest(), "little")
    expected = [splitmix64((user + number) % 2**64) for user in users]
    assert user_hash(np.array(users, dtype=np.int64), salt).tolist() == expected


def test_hashes_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert [hex(h) for h in user_hash(np.array([0, 1, -1]), "split")] == [
        "0xc7516e12a4f2f74e",
        "0xa61b7106409a978",
        "0x5d1a3886ecaf6b53",
    ]
    assert [hex(h) for h in user_hash(pa.array(["ann", "böb", ""]), "split")] == [
        "0xd27a51f8faceaff8",
        "0xb5190b3ceb6328b2",
        "0x9f4c372131bd7240",
    ]


@pytest.mark.parametrize("users", [pa.array(range(7)), pa.array([f"u{i}" for i in range(7)])])
def test_arrow_chunks_and_numpy_hash_alike(users: pa.Array) -> None:
    plain = user_hash(users, "s").tolist()
    assert user_hash(pa.chunked_array([users.slice(0, 3), users.slice(3)]), "s").tolist() == plain
    assert user_hash(users.to_numpy(zero_copy_only=False), "s").tolist() == plain
    assert user_hash(users.slice(2, 3), "s").tolist() == plain[2:5]


def test_the_share_is_kept_and_a_larger_one_only_adds_users() -> None:
    users = np.arange(20_000)
    tenth, half = held_out(users, 0.1, "s"), held_out(users, 0.5, "s")
    assert abs(tenth.mean() - 0.1) < 0.01
    assert abs(half.mean() - 0.5) < 0.02
    assert not (tenth & ~half).any()
    assert not held_out(users, 0.0, "s").any()
    assert held_out(users, 1.0, "s").all()


def test_another_salt_splits_independently() -> None:
    users = np.arange(20_000)
    both = held_out(users, 0.5, "a") & held_out(users, 0.5, "b")
    assert abs(both.mean() - 0.25) < 0.02


def test_a_null_id_a_fractional_id_and_an_impossible_share_are_refused() -> None:
    with pytest.raises(ValueError, match="1 user ids are null"):
        user_hash(pa.array([1, None]), "s")
    with pytest.raises(TypeError, match="whole numbers or text"):
        user_hash(np.array([1.5]), "s")
    with pytest.raises(ValueError, match="from 0 to 1"):
        held_out(np.arange(3), 1.5, "s")
