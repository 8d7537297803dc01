"""Which side of a split a user is on: a hash of the user id, the same on every machine and in every snapshot.

Users are split, not rows: a user of two snapshots must not be trained on in one and validated on in the other.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def user_hash(user_ids: pa.Array | npt.NDArray[Any], salt: str) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit hash of each id; different salts give independent hashes.

    Whole numbers go through the finaliser of splitmix64 (Steele et al. 2014), text through keyed BLAKE2b:
    neither depends on the machine, the process or a library's version.

    Raises:
        TypeError: the ids are neither whole numbers nor text.
        ValueError: an id is null.
    """
    ids = _as_numpy(user_ids)
    if np.issubdtype(ids.dtype, np.integer):
        return mixed(ids.astype(np.int64).view(np.uint64) + _salt_number(salt))
    key = blake2b(salt.encode(), digest_size=32).digest()
    digests = b"".join(blake2b(_text(user).encode(), digest_size=8, key=key).digest() for user in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def held_out(user_ids: pa.Array | npt.NDArray[Any], share: float, salt: str) -> npt.NDArray[np.bool_]:
    """True for the users of the held-out side; a larger ``share`` only adds users to it."""
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    # 53 bits are what a float64 holds exactly.
    return (user_hash(user_ids, salt) >> np.uint64(11)) < np.uint64(round(share * 2**53))


def validation_side(user_ids: pa.Array | npt.NDArray[Any], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """True for the users that a training of this seed validates on: nothing is learned or counted of them."""
    return held_out(user_ids, share, f"validation {seed}")


def _as_numpy(user_ids: pa.Array | npt.NDArray[Any]) -> npt.NDArray[Any]:
    if isinstance(user_ids, np.ndarray):
        return user_ids
    if user_ids.null_count:
        raise ValueError(f"{user_ids.null_count} user ids are null")
    values: npt.NDArray[Any] = user_ids.to_numpy(zero_copy_only=False)
    return values


def mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Splitmix64's next number for each state: a bijection whose every output bit depends on every input bit."""
    # Array arithmetic on uint64 wraps, as the algorithm wants; in place, as memory is what takes the time.
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _salt_number(salt: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(salt.encode(), digest_size=8).digest(), "little"))


def _text(user: object) -> str:
    if not isinstance(user, str):
        raise TypeError(f"user ids must be whole numbers or text, got {user!r}")
    return user
