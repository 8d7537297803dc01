"""Shares of an epoch: row groups are shared by processes and loader workers, and a share's users by its batches."""

from collections.abc import Sequence


def assign(rows: Sequence[int], parts: int) -> list[list[int]]:
    """Assign positions of ``rows`` to parts, in their order; each goes to the part with the fewest rows so far.

    By hand: row groups of 5, 3, 1 and 4 rows over two parts are [0, 3] with 9 rows and [1, 2] with 4.
    """
    held = [0] * parts
    shares: list[list[int]] = [[] for _ in range(parts)]
    for position, count in enumerate(rows):
        part = held.index(min(held))
        shares[part].append(position)
        held[part] += count
    return shares


def split_evenly(total: int, parts: int) -> list[int]:
    """Split ``total`` into ``parts`` sizes that differ by one at most, the larger ones first."""
    size, larger = divmod(total, parts)
    return [size + (part < larger) for part in range(parts)]


def split_like(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` into whole numbers near in proportion to the weights, at least 1 for each weight above 0.

    Raises:
        ValueError: more weights are above 0 than ``total``.
    """
    wanted = [index for index, weight in enumerate(weights) if weight > 0]
    if total < len(wanted):
        raise ValueError(f"{total} cannot be split into {len(wanted)} numbers of at least 1")
    found = [0] * len(weights)
    left, weight_left = total, sum(weights)
    for place, index in enumerate(wanted):
        others = len(wanted) - place - 1
        found[index] = min(max(1, round(left * weights[index] / weight_left)), left - others)
        left, weight_left = left - found[index], weight_left - weights[index]
    return found
