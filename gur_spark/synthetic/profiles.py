"""Profiles of the synthetic log: attributes that users declare when they sign up.

Nine users in ten have a profile, and four in five of these picked interests. Country and plan depend on the persona,
and interests are themes that the user spends on.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd

COUNTRIES = ("de", "es", "fr", "it", "pl", "se")
PLANS = ("basic", "plus", "premium")
HOME = (0, 1, 2, 3, 4)
"""Favourite country of each persona, by index: it is four times as frequent as each other country."""
CHOICE = (1, 2, 0, 2, 0)
"""Favourite plan of each persona, by index: it is four times as frequent as each other plan."""
PROFILES, PICKED = 0.9, 0.8
"""Share of users with a profile, and share of these with interests."""
MOST_PICKS = 4
"""Greatest number of interests."""


def draw_profiles(
    client: np.ndarray, persona: np.ndarray, mix: np.ndarray, themes: Sequence[str], seed: int, since: date
) -> pd.DataFrame:
    """Draw profiles: one row per client with a profile. ``interests`` holds themes with ``|`` between them.

    Args:
        mix: weight of each theme for each client, (users, themes).
    """
    # A generator of its own, so that the log is the same with and without profiles.
    rng = np.random.default_rng((seed, 1))
    users = len(client)
    # Ranks of logarithms with Gumbel noise are a draw by weight without replacement.
    ranked = np.argsort(-(np.log(mix) + rng.gumbel(size=mix.shape)), axis=1)
    picks = np.where(rng.random(users) < PICKED, rng.integers(1, MOST_PICKS + 1, users), 0)
    made = pd.DataFrame(
        {
            "client": client,
            "since": since.isoformat(),
            "country": _leaning(COUNTRIES, np.array(HOME)[persona], rng),
            "plan": _leaning(PLANS, np.array(CHOICE)[persona], rng),
            "interests": ["|".join(themes[t] for t in row[:n]) for row, n in zip(ranked, picks, strict=True)],
        }
    )
    return made[rng.random(users) < PROFILES].sort_values("client")


def _leaning(values: Sequence[str], favourite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a value per user; the favourite value has four times the weight of each other one."""
    weights = 1 + 3 * (np.arange(len(values))[None, :] == favourite[:, None])
    return np.asarray(np.array(values)[np.argmax(np.log(weights) + rng.gumbel(size=weights.shape), axis=1)])
