"""What two kernels know of parts of the same rows, as one: the state of all rows together, however they were split."""

import pyarrow as pa

from gur_spark.features.continued import groups_of, states_of
from gur_spark.features.kernel import PartitionState
from gur_spark.features.states.base import grown
from gur_spark.features.states.groups import Pairs


def merge(state: PartitionState, other: PartitionState) -> None:
    """Let the first know also what the second knows, of the same users or of others; the second stays as it is.

    Raises:
        AggregateOverflow: a sum left its exact range.
        TypeError: a state does not say how two become one.
        ValueError: they are of other columns or bands.
    """
    if (state.manifest, state.bands) != (other.manifest, other.bands):
        raise ValueError(f"a state of {other.bands.dates} and other columns or bands than those of {state.bands.dates}")
    if unmerged := sorted({type(part).__name__ for _, part in states_of(state) if not part.merges()}):
        raise TypeError(f"{', '.join(unmerged)}: 'kept' does not say how the arrays of two states become one")
    if not len(other.users):
        return
    users_U = state.users.encode(pa.chunked_array([other.users.values()]))
    state.named_U = grown(state.named_U, len(state.users), False)
    state.named_U[users_U] |= other.named_U
    codes = {id(state.users): users_U}
    for (_, mine), (_, theirs) in zip(groups_of(state), groups_of(other), strict=True):
        if isinstance(mine, Pairs) and isinstance(theirs, Pairs):
            codes[id(mine)] = mine.encode_all(theirs, users_U)
    for (_, part), (_, more) in zip(states_of(state), states_of(other), strict=True):
        part.merge(more.dump(), codes[id(part.groups)])
    for number, chunks in other.waiting.items():
        state.waiting[number] += chunks
    for number, chunks in other.held_later.items():
        state.held_later[number] += chunks


def can_merge(state: PartitionState) -> bool:
    """Whether every state says how two become one."""
    return all(part.merges() for _, part in states_of(state))
