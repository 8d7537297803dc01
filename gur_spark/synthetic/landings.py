"""The synthetic log as it lands: CSV lines per day, with late, repeated and broken rows."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from gur_spark.synthetic.events import FIRST_DAY, draw_events, draw_users
from gur_spark.synthetic.personas import PERSONAS, THEMES
from gur_spark.synthetic.profiles import draw_profiles

LATE, TWICE, BROKEN = 0.01, 0.01, 0.004
"""Shares of events that land late, that land twice, and that land a second time in a broken line."""


@dataclass(frozen=True)
class Log:
    """A log before it is written."""

    landings: dict[date, list[str]]
    """Landing day -> CSV lines, without the header."""
    labels: pd.DataFrame
    """One row per client, with its persona."""
    profiles: pd.DataFrame
    """At most one row per client, with the attributes that it declared."""
    counts: dict[str, int]
    """``events``: different sound rows; ``late``: those among them that land late; ``duplicates``; ``broken`` rows."""


def generate(users: int, seed: int, days: int) -> Log:
    """Draw a log of so many users over so many days from ``FIRST_DAY`` on."""
    rng = np.random.default_rng(seed)
    drawn = draw_users(users, days, rng)
    events = draw_events(drawn, rng)
    names = np.array(list(PERSONAS))
    labels = pd.DataFrame({"client": drawn.client, "persona": names[drawn.persona]}).sort_values("client")
    landings, counts = land(events, days, rng)
    profiles = draw_profiles(drawn.client, drawn.persona, drawn.mix, list(THEMES), seed, FIRST_DAY)
    return Log(landings, labels, profiles, counts)


def land(events: pd.DataFrame, days: int, rng: np.random.Generator) -> tuple[dict[date, list[str]], dict[str, int]]:
    """CSV lines by landing day, and their counts.

    Some events land late, some twice, and some come a second time in a broken line.
    """
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
    """CSV line of each event."""
    moment = pd.Timestamp(FIRST_DAY) + pd.to_timedelta(events["day"] * 86_400 + events["second"], unit="s")
    category = events["category"].where(~events["category"].str.contains(","), '"' + events["category"] + '"')
    amount = events["amount"].map("{:.2f}".format)
    columns = [moment.dt.strftime("%Y-%m-%d %H:%M:%S"), category, events["channel"], amount]
    return np.asarray(events["client"].astype(str).str.cat(columns, sep=","), dtype=object)


def _break(line: str, how: int) -> str:
    """Break a line in one of five ways."""
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
