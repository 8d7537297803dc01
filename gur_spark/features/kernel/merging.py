"""Merging of two partition states into the state of all rows together, however the rows were split."""

import pyarrow as pa

from gur_spark.features.kernel.dumps import groups_of, states_of
from gur_spark.features.kernel.partition import PartitionState
from gur_spark.features.states.base import grown
from gur_spark.features.states.groups import CategoryGroups


def merge(state: PartitionState, other: PartitionState) -> None:
    """Add the second state to the first. The second stays as it is; both may have the same users.

    Raises:
        AggregateOverflow: a sum left its exact range.
        TypeError: a state has no rule to combine its arrays.
        ValueError: the two have different columns or tiles.
    """
    if (state.manifest, state.tiles) != (other.manifest, other.tiles):
        raise ValueError(
            f"expected a state with the columns and tiles of {state.tiles.dates}, got those of {other.tiles.dates}"
        )
    if unmerged := sorted({type(part).__name__ for _, part in states_of(state) if not part.can_merge()}):
        raise TypeError(f"{', '.join(unmerged)}: 'stored' has no rule to combine the arrays of two states")
    if not len(other.users):
        return
    users_U = state.users.encode(pa.chunked_array([other.users.values()]))
    state.named_U = grown(state.named_U, len(state.users), False)
    state.named_U[users_U] |= other.named_U
    codes = {id(state.users): users_U}
    for (_, mine), (_, theirs) in zip(groups_of(state), groups_of(other), strict=True):
        if isinstance(mine, CategoryGroups) and isinstance(theirs, CategoryGroups):
            codes[id(mine)] = mine.encode_all(theirs, users_U)
    for (_, part), (_, more) in zip(states_of(state), states_of(other), strict=True):
        part.merge(more.dump(), codes[id(part.groups)])
    for number, chunks in other.late_events.items():
        state.late_events[number] += chunks
    for number, chunks in other.late_attributes.items():
        state.late_attributes[number] += chunks


def can_merge(state: PartitionState) -> bool:
    """Whether every state of a partition can be merged."""
    return all(part.can_merge() for _, part in states_of(state))
