"""Naive answers for declared features: a user's events in a list, one window at a time, exact fractions."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from gur_spark.features.declare.spec import Aggregation
from gur_spark.features.declare.windows import Window

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
STEP = Fraction(1, 100)

Rows = Sequence[dict[str, Any]]
"""Events with age_us, amount (steps or None), mcc (id), and the derived _hours_utc, _weekdays_utc and _hash_mcc."""


def declared(rows: Rows, feature: Aggregation, ids: Sequence[int] = ()) -> dict[str, Any]:
    """All columns of a feature for one user; ``ids`` are the ids of the standard histogram of ``by``."""
    made: dict[str, Any] = {}
    for window in feature.windows:
        for chosen in feature.operations:
            inside = within(rows, window)
            if feature.by:
                groups = [[r for r in inside if r[feature.by] == i] for i in ids]
                several = [one(g, feature.field, chosen.name, chosen.parameter) for g in groups]
                made |= {f"{feature.subject}_{chosen.name}_{window.name}": [s[""] for s in several]}
            elif chosen.name in SPECIAL:
                made |= SPECIAL[chosen.name](rows, feature, window)
            else:
                found = one(inside, feature.field, chosen.name, chosen.parameter)
                made |= {f"{feature.subject}_{n or chosen.name}_{window.name}": v for n, v in found.items()}
    for pairs, word, rated in ((feature.ratios, "over", False), (feature.trends, "rate_over", True)):
        for a, b in pairs:
            for chosen in feature.operations:
                first, second = Window.of(a), Window.of(b)
                above, below = (made[f"{feature.subject}_{chosen.name}_{w.name}"] for w in (first, second))
                days = [(w.length or 0) / 24 for w in (first, second)]
                rates = None if above is None or not below else (above / days[0]) / (below / days[1])
                value = rates if rated or rates is None else above / below
                made[f"{feature.subject}_{chosen.name}_{first.name}_{word}_{second.name}"] = value
    return made


def within(rows: Rows, window: Window) -> list[dict[str, Any]]:
    start = window.gap * HOUR_US
    end = math.inf if window.length is None else start + window.length * HOUR_US
    return sorted((r for r in rows if start < r["age_us"] <= end), key=lambda r: r["age_us"])


def one(inside: Rows, field: str | None, name: str, parameter: Any) -> dict[str, Any]:
    """Outputs of an operation by name; the only output of an operation has an empty name."""
    if field is None:
        zoned = f"{name}_utc" if name in ("hours", "weekdays") else ""
        return {zoned: EVENTS[name](inside)}
    if field == "mcc":
        found = CATEGORICAL[name](inside, parameter)
        return found if isinstance(found, dict) else {"": found}
    steps = [r["amount"] for r in inside if r["amount"] is not None]
    found = NUMERIC[name](steps, parameter, inside)
    return found if isinstance(found, dict) else {"": found}


def _gap_mean(inside: Rows) -> float | None:
    ages = [r["age_us"] for r in inside]
    return float(Fraction(max(ages) - min(ages), (len(ages) - 1) * DAY_US)) if len(ages) > 1 else None


def _gap_std(inside: Rows) -> float | None:
    ages = [Fraction(r["age_us"], DAY_US) for r in inside]
    gaps = [b - a for a, b in pairwise(ages)]
    return math.sqrt(_central(gaps, 2)) if gaps else None


EVENTS: dict[str, Callable[[Rows], Any]] = {
    "events": len,
    "active_days": lambda inside: len({(r["age_us"] - 1) // DAY_US for r in inside}),
    "gap_mean": _gap_mean,
    "gap_std": _gap_std,
    "hours": lambda inside: [sum(r["_hours_utc"] == h for r in inside) for h in range(24)],
    "weekdays": lambda inside: [sum(r["_weekdays_utc"] == d for r in inside) for d in range(7)],
}


def _central(values: Sequence[Any], power: int) -> Fraction:
    mean = Fraction(sum(values), len(values))
    return sum((v - mean) ** power for v in values) / Fraction(len(values))


def _skew(steps: Sequence[int]) -> float | None:
    if len(set(steps)) < 2:
        return None
    return float(_central(steps, 3)) / float(_central(steps, 2)) ** 1.5


def _kurtosis(steps: Sequence[int]) -> float | None:
    if len(set(steps)) < 2:
        return None
    return float(_central(steps, 4) / _central(steps, 2) ** 2 - 3)


def _ordered(inside: Rows, field: str) -> list[Any]:
    """Values, newest first; at one time the greater first."""
    rows = [r for r in inside if r[field] is not None]
    return [r[field] for r in sorted(rows, key=lambda r: (r["age_us"], -r[field]))]


def _first(inside: Rows, field: str) -> Any:
    rows = [r for r in inside if r[field] is not None]
    return min(rows, key=lambda r: (-r["age_us"], -r[field]))[field] if rows else None


def _bins(steps: Sequence[int], edges: Any) -> list[int]:
    counts = [0] * (len(edges) + 1)
    for x in steps:
        counts[sum(x * STEP >= Fraction(str(e)) for e in edges)] += 1
    return counts


def _quantiles(steps: Sequence[int], shares: Any) -> dict[str, Any]:
    ordered = sorted(steps)
    names = [f"p{100 * q:g}".replace(".", "_") for q in shares]
    ranks = [math.floor(q * (len(steps) - 1)) for q in shares]
    return {n: units(ordered[r]) if steps else None for n, r in zip(names, ranks, strict=True)}


def _decayed(inside: Rows, half_life: float) -> dict[str, Any]:
    days = Counter[int]()
    for r in inside:
        if r["amount"] is not None:
            days[(r["age_us"] - 1) // DAY_US] += r["amount"]
    total = sum(s * Fraction(2.0 ** (-d / half_life)) for d, s in days.items())
    return {f"decayed_sum_{half_life:g}".replace(".", "_"): float(total * STEP)}


def units(steps: int | None) -> float | None:
    return None if steps is None else float(steps * STEP)


def _mean(steps: Sequence[int]) -> float | None:
    return float(Fraction(sum(steps), len(steps)) * STEP) if steps else None


def _std(steps: Sequence[int]) -> float | None:
    return math.sqrt(_central(steps, 2)) * float(STEP) if steps else None


def _share(steps: Sequence[int], which: Callable[[int], bool]) -> float | None:
    return sum(map(which, steps)) / len(steps) if steps else None


NUMERIC: dict[str, Callable[[Sequence[int], Any, Rows], Any]] = {
    "count": lambda x, _, __: len(x),
    "sum": lambda x, _, __: units(sum(x)),
    "mean": lambda x, _, __: _mean(x),
    "std": lambda x, _, __: _std(x),
    "min": lambda x, _, __: units(min(x, default=None)),
    "max": lambda x, _, __: units(max(x, default=None)),
    "range": lambda x, _, __: units(max(x) - min(x)) if x else None,
    "skew": lambda x, _, __: _skew(x),
    "kurtosis": lambda x, _, __: _kurtosis(x),
    "share_zero": lambda x, _, __: _share(x, lambda v: v == 0),
    "share_negative": lambda x, _, __: _share(x, lambda v: v < 0),
    "first": lambda _, __, inside: units(_first(inside, "amount")),
    "last": lambda _, __, inside: units(next(iter(_ordered(inside, "amount")), None)),
    "last_k": lambda _, k, inside: {f"last_{k}": [units(x) for x in _ordered(inside, "amount")[:k]]},
    "bins": lambda x, edges, __: _bins(x, edges),
    "quantiles": lambda x, shares, __: _quantiles(x, shares),
    "decayed_sum": lambda _, half_life, inside: _decayed(inside, half_life),
}


def _top(inside: Rows, k: int) -> dict[str, Any]:
    best = sorted(Counter(r["mcc"] for r in inside).items(), key=lambda item: (-item[1], item[0]))[:k]
    return {f"top_{k}": [i for i, _ in best], f"top_{k}_counts": [n for _, n in best]}


def _entropy(inside: Rows) -> float | None:
    shares = [n / len(inside) for n in Counter(r["mcc"] for r in inside).values()]
    return abs(-sum(p * math.log(p) for p in shares)) if shares else None


def _hyperloglog(inside: Rows, bits: int) -> int:
    registers = [0] * (1 << bits)
    for r in inside:
        rest = r["_hash_mcc"] >> bits
        place = r["_hash_mcc"] % len(registers)
        registers[place] = max(registers[place], 31 - bits - rest.bit_length() + 1)
    m = len(registers)
    bias = {16: 0.673, 32: 0.697, 64: 0.709}.get(m, 0.7213 / (1 + 1.079 / m))
    raw = bias * m * m / sum(2.0**-r for r in registers)
    zeros = registers.count(0)
    return round(m * math.log(m / zeros) if raw <= 2.5 * m and zeros else raw)


def _mode(inside: Rows) -> int | None:
    return next(iter(_top(inside, 1)["top_1"]), None)


def _mode_share(inside: Rows) -> float | None:
    return _top(inside, 1)["top_1_counts"][0] / len(inside) if inside else None


CATEGORICAL: dict[str, Callable[[Rows, Any], Any]] = {
    "distinct": lambda inside, _: len({r["mcc"] for r in inside}),
    "top_k": _top,
    "mode": lambda inside, _: _mode(inside),
    "mode_share": lambda inside, _: _mode_share(inside),
    "entropy": lambda inside, _: _entropy(inside),
    "first": lambda inside, _: _first(inside, "mcc"),
    "last": lambda inside, _: next(iter(_ordered(inside, "mcc")), None),
    "last_k": lambda inside, k: {f"last_{k}": _ordered(inside, "mcc")[:k]},
    "approx_distinct": lambda inside, bits: _hyperloglog(inside, bits or 8),
}


def _longest(feature: Aggregation) -> Window:
    return max(feature.windows, key=lambda w: math.inf if w.length is None else w.length)


def _silent(rows: Rows, feature: Aggregation, window: Window) -> dict[str, Any]:
    active = {(r["age_us"] - 1) // DAY_US for r in rows}
    assert window.days is not None
    flags = "".join("x" if day in active else "." for day in range(window.before, window.before + window.days))
    return {f"{feature.subject}_silent_days_{window.name}": max(map(len, flags.split("x")))}


def _since(rows: Rows, feature: Aggregation, _: Window) -> dict[str, Any]:
    ages = [r["age_us"] for r in within(rows, _longest(feature))]
    last, first = (min(ages) / DAY_US, max(ages) / DAY_US) if ages else (None, None)
    return {f"{feature.subject}_recency_days": last, f"{feature.subject}_tenure_days": first}


def _histogram(rows: Rows, feature: Aggregation, window: Window) -> dict[str, Any]:
    ids = sorted({r["mcc"] for r in within(rows, _longest(feature))})
    counts = Counter(r["mcc"] for r in within(rows, window))
    return {
        f"{feature.subject}_ids": ids,
        f"{feature.subject}_counts_{window.name}": [counts[i] for i in ids],
    }


def _new(rows: Rows, feature: Aggregation, window: Window) -> dict[str, Any]:
    longest = _longest(feature)
    if window == longest:
        return {}
    inside = within(rows, window)
    before = {r["mcc"] for r in within(rows, longest) if r not in inside}
    return {f"{feature.subject}_new_{window.name}": len({r["mcc"] for r in inside} - before)}


SPECIAL: dict[str, Callable[[Rows, Aggregation, Window], dict[str, Any]]] = {
    "silent_days": _silent,
    "recency": _since,
    "tenure": _since,
    "histogram": _histogram,
    "ids": _histogram,
    "new": _new,
}
"""Operations that read more than their own window."""
