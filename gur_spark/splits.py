"""Splits of users by a hash of their ids, which is the same on every machine and in every snapshot.

Users are split and not rows, because a user of two snapshots must not be trained on in one and validated on in the
other.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gur_spark.arrays import Mask


def user_hash(user_ids: pa.Array | npt.NDArray[Any], salt: str) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit hash of each id. Different salts give independent hashes.

    Whole numbers are hashed by the finaliser of splitmix64 (Steele et al. 2014), text by keyed BLAKE2b. Neither depends
    on the machine, the process or a library's version.

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


def held_out(user_ids: pa.Array | npt.NDArray[Any], share: float, salt: str) -> Mask:
    """Mask of the held-out users. A greater ``share`` only adds users."""
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    # A float64 holds 53 bits exactly.
    return (user_hash(user_ids, salt) >> np.uint64(11)) < np.uint64(round(share * 2**53))


def validation_side(user_ids: pa.Array | npt.NDArray[Any], share: float, seed: int) -> Mask:
    """Mask of the users that a training with this seed validates on; it neither learns from them nor counts them."""
    return held_out(user_ids, share, f"validation {seed}")


def _as_numpy(user_ids: pa.Array | npt.NDArray[Any]) -> npt.NDArray[Any]:
    if isinstance(user_ids, np.ndarray):
        return user_ids
    if user_ids.null_count:
        raise ValueError(f"{user_ids.null_count} user ids are null")
    values: npt.NDArray[Any] = user_ids.to_numpy(zero_copy_only=False)
    return values


def mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Next number of splitmix64 for each state: a bijection in which each output bit depends on each input bit."""
    # Arithmetic on uint64 arrays wraps, as the algorithm needs. It is in place, because memory takes the time.
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
