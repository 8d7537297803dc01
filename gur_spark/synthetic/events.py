"""Users of the synthetic log and their events, before they land."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from gur_spark.synthetic.personas import CHANNELS, PERSONAS, THEMES

FIRST_DAY = date(2025, 1, 1)


@dataclass(frozen=True)
class DrawnUsers:
    """Everything that is drawn once per user."""

    client: np.ndarray
    """Number of each client, (users,)."""
    persona: np.ndarray
    """Index of each user's persona, (users,)."""
    mean: np.ndarray
    """Expected number of events of each user on each day, (users, days)."""
    leaving: np.ndarray
    """True from the day on which a user begins to leave, (users, days)."""
    mix: np.ndarray
    """Weight of each theme, (users, themes)."""
    spend: np.ndarray
    """Factor of each user's amounts, (users,)."""


def draw_users(users: int, days: int, rng: np.random.Generator) -> DrawnUsers:
    """Draw users with their rate on each day."""
    personas = list(PERSONAS.values())
    persona = rng.choice(len(personas), users, p=[p.share for p in personas])
    rate = rng.lognormal(np.log(1 / 2), 0.8, users)
    rate[rng.permutation(users)[: round(users * 0.003)]] *= 60
    weekend = np.array([p.weekend for p in personas])[persona]
    is_weekend = np.array([(FIRST_DAY + timedelta(day)).weekday() >= 5 for day in range(days)])
    weekday = np.where(is_weekend[None, :], weekend[:, None], 1.0)
    present, leaving = _presence(users, days, rng)
    likes = np.array([[p.likes.get(theme, 1.0) for theme in THEMES] for p in personas])
    gamma = rng.gamma(1.5 * likes[persona])
    return DrawnUsers(
        client=1_000_000 + rng.choice(9_000_000, users, replace=False),
        persona=persona,
        mean=rate[:, None] * weekday * (1 + 0.2 * _season(np.arange(days))) * present,
        leaving=leaving,
        mix=gamma / gamma.sum(axis=1, keepdims=True),
        spend=np.array([p.spend for p in personas])[persona] * rng.lognormal(0, 0.3, users),
    )


def _season(day: np.ndarray) -> np.ndarray:
    """Sine over the year, from -1 in mid January to 1 in mid July."""
    return -np.cos(2 * np.pi * (day - 15) / 365)


def _presence(users: int, days: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Share of each user's rate that is left on each day, and whether the user is leaving; both (users, days)."""
    day = np.arange(days)[None, :]
    start = np.where(rng.random(users) < 0.7, 0, rng.integers(0, days, users))[:, None]
    leaves = (rng.random(users) < 1 / 3)[:, None]
    onset = rng.uniform(20, days + 30, users)[:, None]
    halvings = np.maximum(day - onset, 0) / rng.uniform(5, 40, users)[:, None]
    left = np.where(leaves, np.where(halvings < 4, 0.5**halvings, 0.0), 1.0)
    present = left * (day >= start)
    for _ in range(4):
        begin = rng.uniform(0, days, users)[:, None]
        length = np.where(rng.random(users) < 0.5, rng.uniform(10, 60, users), 0)[:, None]
        present[(day >= begin) & (day < begin + length)] = 0
    return present, leaves & (halvings > 0)


def draw_events(users: DrawnUsers, rng: np.random.Generator) -> pd.DataFrame:
    """Draw events: one row per event, all rows different, in random order within a day."""
    counts = rng.poisson(users.mean)
    user, day = (np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
    personas, themes = list(PERSONAS.values()), list(THEMES.values())
    persona, leaving = users.persona[user], users.leaving[user, day]
    summer = np.array([theme.summer for theme in themes])
    weights = users.mix[user] * (1 + summer[None, :] * _season(day)[:, None])
    theme = _choose(weights, rng)
    hour = rng.normal(np.array([p.hour for p in personas])[persona], 3.0) % 24
    second = np.minimum((hour * 3600).astype(np.int64), 86_399)
    median = np.array([t.median_amount for t in themes])[theme] * users.spend[user] * np.where(leaving, 0.8, 1)
    amount = np.maximum(np.round(median * rng.lognormal(0, 0.6, len(user)), 2), 0.01)
    refund = rng.random(len(user)) < np.where(leaving, 0.06, 0.02)
    events = pd.DataFrame(
        {
            "client": users.client[user],
            "day": day,
            "second": second,
            "category": _categories(theme, rng),
            "channel": CHANNELS[_choose(np.array([p.channels for p in personas])[persona], rng)],
            "amount": np.where(refund, -amount, amount),
        }
    ).drop_duplicates()
    return events.iloc[rng.permutation(len(events))].sort_values("day", kind="stable").reset_index(drop=True)


def _choose(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one index per row, with probabilities in proportion to the row's weights."""
    cumulative = np.cumsum(weights, axis=1)
    below = cumulative < rng.random((len(weights), 1)) * cumulative[:, -1:]
    return np.asarray(below.sum(axis=1))


def _categories(theme: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a merchant category of each event's theme: the n-th is drawn in proportion to 1 / n."""
    chosen = np.empty(len(theme), dtype=object)
    for index, each in enumerate(THEMES.values()):
        rows = np.flatnonzero(theme == index)
        weight = 1 / np.arange(1, len(each.categories) + 1)
        chosen[rows] = rng.choice(np.array(each.categories, dtype=object), len(rows), p=weight / weight.sum())
    return chosen
