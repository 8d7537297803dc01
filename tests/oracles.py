"""Naive answers in plain Python: all rows of a user in a list, one window at a time, exact fractions."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.windows import hours_of, name_of

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


def aggregate_rows(rows: Sequence[dict[str, Any]], manifest: Manifest) -> dict[Any, dict[str, Any]]:
    """Rows by user_id: every column but user_id and as_of; rows have user_id, age_us, fields as steps and ids.

    A row with age_us None names a user. Rows outside the longest window must not be there.
    """
    return {
        user: _one_user([r for r in rows if r["user_id"] == user and r["age_us"] is not None], manifest)
        for user in {r["user_id"] for r in rows}
    }


def _one_user(rows: Sequence[dict[str, Any]], manifest: Manifest) -> dict[str, Any]:
    windows = {name_of(hours_of(length)): hours_of(length) * HOUR_US for length in manifest.windows}
    longest = max(windows.values())
    out: dict[str, Any] = {
        "recency_days": min((r["age_us"] for r in rows), default=None),
        "tenure_days": max((r["age_us"] for r in rows), default=None),
    }
    for name in ("recency_days", "tenure_days"):
        out[name] = None if out[name] is None else out[name] / DAY_US
    for w, length in windows.items():
        inside = [r for r in rows if 0 < r["age_us"] <= length]
        out[f"events_{w}"] = len(inside)
        out[f"active_days_{w}"] = len({(r["age_us"] - 1) // DAY_US for r in inside})
        for field in manifest.numeric:
            steps = [r[field.name] for r in inside if r[field.name] is not None]
            out |= {f"{field.name}_{k}_{w}": v for k, v in _statistics(steps, Fraction(field.step)).items()}
        for name in manifest.categorical:
            counts = Counter(r[name] for r in inside)
            ids = sorted({r[name] for r in rows if r["age_us"] <= longest})
            out[f"{name}_distinct_{w}"] = len(counts)
            out[f"{name}_ids"] = ids
            out[f"{name}_counts_{w}"] = [counts[i] for i in ids]
    return out


def _statistics(steps: Sequence[int], step: Fraction) -> dict[str, Any]:
    n, total = len(steps), sum(steps)
    if not n:
        return {"count": 0, "sum": 0.0, "mean": None, "std": None, "min": None, "max": None}
    variance = Fraction(sum(x * x for x in steps), n) - Fraction(total, n) ** 2
    return {
        "count": n,
        "sum": float(total * step),
        "mean": float(Fraction(total, n) * step),
        "std": math.sqrt(variance) * float(step),
        "min": float(min(steps) * step),
        "max": float(max(steps) * step),
    }


def same_rows(found: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> bool:
    """Integers, lists and nulls exactly; floats within a few units of their last place."""
    return found.keys() == expected.keys() and all(
        found[u].keys() == expected[u].keys() and all(_same(found[u][k], expected[u][k]) for k in expected[u])
        for u in expected
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, float):
        return isinstance(a, float) and math.isclose(a, b, rel_tol=1e-14, abs_tol=1e-300)
    return type(a) is type(b) and a == b
