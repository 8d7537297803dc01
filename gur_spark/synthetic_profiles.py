"""What the users of the synthetic log declare when they sign up, some of them nothing.

Country and plan lean to the user's persona, interests are themes that the user spends on; nine users in ten have a
profile, four in five of these picked interests.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd

COUNTRIES = ("de", "es", "fr", "it", "pl", "se")
PLANS = ("basic", "plus", "premium")
HOME = (0, 1, 2, 3, 4)
"""The country that each persona is four times as often from as from another."""
CHOICE = (1, 2, 0, 2, 0)
"""The plan that each persona chooses four times as often as another."""
PROFILES, PICKED = 0.9, 0.8
MOST_PICKS = 4


def draw_profiles(
    client: np.ndarray, persona: np.ndarray, mix: np.ndarray, themes: Sequence[str], seed: int, since: date
) -> pd.DataFrame:
    """One row per client with a profile; ``interests`` are themes with ``|`` between them.

    Args:
        mix: weight of each theme for each client, (users, themes).
    """
    # Its own numbers: the log is the same with and without profiles.
    rng = np.random.default_rng((seed, 1))
    users = len(client)
    # With Gumbel noise on the logarithms, the greatest are a draw without replacement by weight.
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
    """A value per user, the favourite one with four times the weight of each other."""
    weights = 1 + 3 * (np.arange(len(values))[None, :] == favourite[:, None])
    return np.asarray(np.array(values)[np.argmax(np.log(weights) + rng.gumbel(size=weights.shape), axis=1)])
