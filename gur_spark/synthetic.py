"""A card log to try gur_spark on: personas, seasons, people who fade out, and rows that are broken on purpose.

``python -m gur_spark.synthetic --out FOLDER`` writes ``FOLDER/landings/YYYY-MM-DD.csv.gz`` (client, booked_at,
merchant_category, channel, amount), ``FOLDER/labels.csv`` (client, persona) and ``FOLDER/profiles.csv`` (what users
declare when they sign up, ``synthetic_profiles``). The same arguments give the same bytes. How a log comes about:

* **Who.** A user has one of five personas, a rate (log-normal around one event in two days; three users in a
  thousand are *hot*, with sixty times their rate) and a start: most are there from the first day, 30 % join later.
* **When.** The events of a user's day are Poisson with mean rate x weekday (by persona) x year (a sine with its
  top in mid July) x presence. The hour is normal around the persona's hour.
* **Presence.** One user in three leaves: from a day of their own on, their rate halves every 5 to 40 days and is zero
  after four halvings. Everyone also has pauses (two on average, of 10 to 60 days) and comes back, so
  silence is a sign of having left, not the proof. Users who fade spend less and ask for refunds more often.
* **What.** Each user has a mix of ten themes, Dirichlet around the persona's; travel and home follow the
  seasons. A theme has four merchant categories, the last one has 400 with Zipf's law: the long tail.
  Amounts are log-normal around the theme's median, by persona and user; a refund is negative.
* **How it lands.** A row lands on its day. 1 % land up to five days late, 1 % are delivered twice (half of these in
  a later file), and 0.4 % come a second time broken: too many or too few columns, a date that does not exist, an
  amount that is no number, no client. So the events that a pipeline must end with are known exactly (``Log.counts``).
"""

import argparse
import gzip
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from gur_spark.errors import GurError
from gur_spark.synthetic_profiles import draw_profiles

FORMAT = 2
"""Goes up when the same arguments give another log, so that an old one is not taken for it."""

FIRST_DAY = date(2025, 1, 1)
DAYS = 243
HEADER = "client,booked_at,merchant_category,channel,amount"
CHANNELS = np.array(["chip", "contactless", "online", "atm", ""])
"""An empty channel is a missing one."""

LATE, TWICE, BROKEN = 0.01, 0.01, 0.004


@dataclass(frozen=True)
class Theme:
    categories: tuple[str, ...]
    median_amount: float
    summer: float = 0.0
    """Swing over the year: the theme's weight is multiplied by 1 + summer x sine, whose top is in mid July."""


THEMES = {
    "groceries": Theme(("grocery store", "bakery", "butcher", "market stall"), 24),
    "transport": Theme(("fuel", "parking", "public transport", "taxi"), 18),
    "restaurants": Theme(("restaurant", "fast food", "coffee", "bar"), 14),
    "travel": Theme(("airline", "hotel", "car rental", "travel agency"), 160, summer=0.6),
    "home": Theme(("furniture", "hardware", "utilities", "garden"), 60, summer=-0.3),
    "children": Theme(("toys", "school", "baby goods", "sports club"), 35),
    "digital": Theme(("streaming", "games", "app store", "telecom"), 10),
    "culture": Theme(("books, music", "cinema", "museum", "theatre"), 22),
    "health": Theme(("pharmacy", "doctor", "dentist", "gym"), 30),
    "shops": Theme(tuple(f"shop {number:03d}" for number in range(1, 401)), 28),
}


@dataclass(frozen=True)
class Persona:
    share: float
    likes: dict[str, float]
    """Weight of a theme; 1 where it is not named."""
    weekend: float
    """Rate on Saturday and Sunday, against 1 from Monday to Friday."""
    hour: float
    spend: float
    channels: tuple[float, float, float, float, float]


PERSONAS = {
    "commuter": Persona(
        share=0.25,
        likes={"transport": 3, "restaurants": 1.6},
        weekend=0.6,
        hour=9,
        spend=0.9,
        channels=(0.25, 0.5, 0.15, 0.08, 0.02),
    ),
    "family": Persona(
        share=0.25,
        likes={"groceries": 2.2, "children": 2.5, "home": 1.5},
        weekend=1.4,
        hour=16,
        spend=1.2,
        channels=(0.4, 0.3, 0.2, 0.08, 0.02),
    ),
    "student": Persona(
        share=0.2,
        likes={"digital": 2.5, "restaurants": 2, "culture": 1.4},
        weekend=1.3,
        hour=20,
        spend=0.6,
        channels=(0.1, 0.5, 0.33, 0.05, 0.02),
    ),
    "traveller": Persona(
        share=0.15,
        likes={"travel": 3, "restaurants": 1.6},
        weekend=1.0,
        hour=13,
        spend=1.6,
        channels=(0.35, 0.25, 0.33, 0.05, 0.02),
    ),
    "homebody": Persona(
        share=0.15,
        likes={"home": 2, "health": 2, "culture": 1.5},
        weekend=0.9,
        hour=11,
        spend=1.0,
        channels=(0.45, 0.15, 0.2, 0.18, 0.02),
    ),
}


@dataclass(frozen=True)
class Log:
    """A log before it is written."""

    landings: dict[date, list[str]]
    """CSV lines by the day they land, without the header."""
    labels: pd.DataFrame
    """One row per client, with its persona."""
    profiles: pd.DataFrame
    """At most one row per client: what it declared."""
    counts: dict[str, int]
    """``events`` different sound rows; ``duplicates`` of them; ``broken`` rows; ``late`` ones among the events."""


@dataclass(frozen=True)
class _Users:
    """Everything that is drawn once per user."""

    client: np.ndarray
    persona: np.ndarray
    mean: np.ndarray
    """Expected events of each user on each day, (users, days)."""
    fading: np.ndarray
    """Whether the user is leaving by that day, (users, days)."""
    mix: np.ndarray
    """Weight of each theme, (users, themes)."""
    spend: np.ndarray


def generate(users: int, seed: int, days: int = DAYS) -> Log:
    """Draw a log of ``users`` users over ``days`` days from ``FIRST_DAY`` on."""
    rng = np.random.default_rng(seed)
    drawn = _draw_users(users, days, rng)
    events = _draw_events(drawn, rng)
    names = np.array(list(PERSONAS))
    labels = pd.DataFrame({"client": drawn.client, "persona": names[drawn.persona]}).sort_values("client")
    landings, counts = _land(events, days, rng)
    profiles = draw_profiles(drawn.client, drawn.persona, drawn.mix, list(THEMES), seed, FIRST_DAY)
    return Log(landings, labels, profiles, counts)


def _draw_users(users: int, days: int, rng: np.random.Generator) -> _Users:
    personas = list(PERSONAS.values())
    persona = rng.choice(len(personas), users, p=[p.share for p in personas])
    rate = rng.lognormal(np.log(1 / 2), 0.8, users)
    rate[rng.permutation(users)[: round(users * 0.003)]] *= 60
    weekend = np.array([p.weekend for p in personas])[persona]
    is_weekend = np.array([(FIRST_DAY + timedelta(day)).weekday() >= 5 for day in range(days)])
    weekday = np.where(is_weekend[None, :], weekend[:, None], 1.0)
    present, fading = _presence(users, days, rng)
    likes = np.array([[p.likes.get(theme, 1.0) for theme in THEMES] for p in personas])
    gamma = rng.gamma(1.5 * likes[persona])
    return _Users(
        client=1_000_000 + rng.choice(9_000_000, users, replace=False),
        persona=persona,
        mean=rate[:, None] * weekday * (1 + 0.2 * _season(np.arange(days))) * present,
        fading=fading,
        mix=gamma / gamma.sum(axis=1, keepdims=True),
        spend=np.array([p.spend for p in personas])[persona] * rng.lognormal(0, 0.3, users),
    )


def _season(day: np.ndarray) -> np.ndarray:
    """A year's sine, from -1 in mid January to 1 in mid July."""
    return -np.cos(2 * np.pi * (day - 15) / 365)


def _presence(users: int, days: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What is left of each user's rate on each day, and whether the user is fading by then; both (users, days)."""
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


def _draw_events(users: _Users, rng: np.random.Generator) -> pd.DataFrame:
    """One row per event, each different from all others, in random order within a day."""
    counts = rng.poisson(users.mean)
    user, day = (np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
    personas, themes = list(PERSONAS.values()), list(THEMES.values())
    persona, fading = users.persona[user], users.fading[user, day]
    summer = np.array([theme.summer for theme in themes])
    weights = users.mix[user] * (1 + summer[None, :] * _season(day)[:, None])
    theme = _choose(weights, rng)
    hour = rng.normal(np.array([p.hour for p in personas])[persona], 3.0) % 24
    second = np.minimum((hour * 3600).astype(np.int64), 86_399)
    median = np.array([t.median_amount for t in themes])[theme] * users.spend[user] * np.where(fading, 0.8, 1)
    amount = np.maximum(np.round(median * rng.lognormal(0, 0.6, len(user)), 2), 0.01)
    refund = rng.random(len(user)) < np.where(fading, 0.06, 0.02)
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
    """One index per row, with probabilities in proportion to the row's weights."""
    cumulative = np.cumsum(weights, axis=1)
    below = cumulative < rng.random((len(weights), 1)) * cumulative[:, -1:]
    return np.asarray(below.sum(axis=1))


def _categories(theme: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A merchant category for each event's theme: the n-th is chosen in proportion to 1 / n."""
    chosen = np.empty(len(theme), dtype=object)
    for index, each in enumerate(THEMES.values()):
        rows = np.flatnonzero(theme == index)
        weight = 1 / np.arange(1, len(each.categories) + 1)
        chosen[rows] = rng.choice(np.array(each.categories, dtype=object), len(rows), p=weight / weight.sum())
    return chosen


def _land(events: pd.DataFrame, days: int, rng: np.random.Generator) -> tuple[dict[date, list[str]], dict[str, int]]:
    """Lines by landing day: the events, some of them late, some twice, and some a second time but broken."""
    line, day = _lines(events), events["day"].to_numpy()
    late = rng.random(len(line)) < LATE
    landing = np.where(late, np.minimum(day + rng.integers(1, 6, len(line)), days - 1), day)
    twice = np.flatnonzero(rng.random(len(line)) < TWICE)
    again = np.minimum(landing[twice] + rng.integers(0, 2, len(twice)) * rng.integers(1, 4, len(twice)), days - 1)
    hurt = np.flatnonzero(rng.random(len(line)) < BROKEN)
    broken = [_break(text, how) for text, how in zip(line[hurt], rng.integers(0, 5, len(hurt)), strict=True)]
    lines = pd.Series(np.concatenate([line, line[twice], np.array(broken, dtype=object)]))
    landed = np.concatenate([landing, again, landing[hurt]])
    counts = {"events": len(line), "duplicates": len(twice), "broken": len(hurt), "late": int((landing > day).sum())}
    by_day = lines.groupby(landed).agg(list)
    return {FIRST_DAY + timedelta(offset): by_day.get(offset, []) for offset in range(days)}, counts


def _lines(events: pd.DataFrame) -> np.ndarray:
    moment = pd.Timestamp(FIRST_DAY) + pd.to_timedelta(events["day"] * 86_400 + events["second"], unit="s")
    category = events["category"].where(~events["category"].str.contains(","), '"' + events["category"] + '"')
    amount = events["amount"].map("{:.2f}".format)
    columns = [moment.dt.strftime("%Y-%m-%d %H:%M:%S"), category, events["channel"], amount]
    return np.asarray(events["client"].astype(str).str.cat(columns, sep=","), dtype=object)


def _break(line: str, how: int) -> str:
    client, booked_at, rest = line.split(",", 2)
    match how:
        case 0:
            return line + ",,"
        case 1:
            return f"{client},{booked_at}"
        case 2:
            return f"{client},2025-02-30{booked_at[10:]},{rest}"
        case 3:
            return line.rsplit(",", 1)[0] + ",n/a"
        case _:
            return f",{booked_at},{rest}"


def write(out: Path, users: int, seed: int, days: int = DAYS) -> bool:
    """Write a log to the folder ``out``, whole or not at all; returns False where it is there already.

    Raises:
        GurError: ``out`` holds something else.
    """
    arguments = {"format": FORMAT, "users": users, "seed": seed, "days": days}
    marker = out / "complete.json"
    if marker.is_file() and json.loads(marker.read_text())["arguments"] == arguments:
        return False
    if out.exists() and not marker.is_file():
        raise GurError(f"'{out}' exists and is not a synthetic log; give another folder, or remove it")
    log = generate(users, seed, days)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "landings").mkdir(parents=True)
    for day, lines in log.landings.items():
        content = "\n".join([HEADER, *lines, ""]).encode()
        # No time of writing in the header: the same log is the same bytes.
        (partial / "landings" / f"{day}.csv.gz").write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    log.labels.to_csv(partial / "labels.csv", index=False)
    log.profiles.to_csv(partial / "profiles.csv", index=False)
    (partial / marker.name).write_text(json.dumps({"arguments": arguments, "counts": log.counts}, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gur_spark.synthetic", description="Write a synthetic card log.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--days", type=int, default=DAYS, help=f"days from {FIRST_DAY} on")
    args = parser.parse_args(argv)
    if args.users < 1 or args.days < 1:
        parser.error("expected at least one user and one day")
    try:
        written = write(args.out, args.users, args.seed, args.days)
    except GurError as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return error.exit_code
    counts = json.loads((args.out / "complete.json").read_text())["counts"]
    told = ", ".join(f"{name} {value:,}" for name, value in counts.items())
    print(f"{args.out}: {told}" + ("" if written else " (there already)"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
