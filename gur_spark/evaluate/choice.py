"""The choice between models for the advice of a report, on other users than those who measure it.

The better of two models on the test users looks better than it is. So the test users are halved at random. In each
half, every representation is measured with the model that did best on the other half, and a figure is the mean of both
halves. No user chooses and measures at once, so a side with more or noisier models gains nothing by the choice. Figures
of metrics over pairs of users, such as AUC, may differ in the third digit from those over all test users.
"""

# R = resamples, U = users tested in some split

import numpy as np

from gur_spark.arrays import Mask
from gur_spark.evaluate.advice import Advice
from gur_spark.evaluate.figures import BOTH, EMBEDDING, RAW, Difference, Score
from gur_spark.evaluate.pooling import Measured, Pool, mean_defined
from gur_spark.statistics.bootstrap import interval

PAIRS = ((EMBEDDING, RAW), (BOTH, EMBEDDING), (BOTH, RAW))


def advise(pool: Pool, few: list[Pool], seed: int, smallest: float) -> Advice:
    """Compare the best models on the embedding, on raw windows and on both.

    Args:
        pool: splits whose models were fitted on all labels.
        few: splits whose models were fitted on a share of them; only the embedding and raw windows are compared.
    """
    best, apart = compare(pool, seed)
    for one in few:
        scores, found = compare(one, seed)
        best, apart = [*best, *scores], [*apart, *found]
    return Advice(pool.name, pool.metrics[0], smallest, best, apart)


def compare(pool: Pool, seed: int) -> tuple[list[Score], list[Difference]]:
    """Measure the best model on each representation, and the differences of ``PAIRS``."""
    metric, share = pool.metrics[0], pool.splits[0].label_share
    names = dict.fromkeys(name for _, name in pool.keys if name in (EMBEDDING, RAW, BOTH))
    halves = halved(pool, seed)
    chosen = {name: best_of(pool, name, halves) for name in names}
    found = {name: one for name, one in chosen.items() if np.isfinite(one[1].value)}
    scores = [pool.score(measured, metric, model, name) for name, (model, measured) in found.items()]
    apart = []
    for ours, theirs in PAIRS:
        if {ours, theirs} <= found.keys():
            a, b = found[ours][1], found[theirs][1]
            low, high = interval(a.resampled_R - b.resampled_R)
            apart.append(
                Difference(pool.name, "best", metric, ours, theirs, a.value - b.value, low, high, label_share=share)
            )
    return scores, apart


def halved(pool: Pool, seed: int) -> tuple[list[Mask], list[Mask]]:
    """Halve the test users; a user is in the same half in all splits and at all dates. One mask per split each."""
    users = len(pool.tested_U)
    first_U = np.random.default_rng(seed).permutation(users) < users // 2
    places = [np.searchsorted(pool.tested_U, split.dated.user_N[split.test]) for split in pool.splits]
    return [first_U[place] for place in places], [~first_U[place] for place in places]


def best_of(pool: Pool, name: str, halves: tuple[list[Mask], list[Mask]]) -> tuple[str, Measured]:
    """Measure a representation in each half with the model that is best in the other one; the mean of both halves.

    Returns the model that is best over both halves, too.
    """
    models = [model for model, representation in pool.keys if representation == name]
    found = {model: [pool.measure(0, (model, name), half) for half in halves] for model in models}

    def score(model: str, *sides: int) -> float:
        values = [found[model][side].value for side in sides]
        return float(np.mean(values)) if np.isfinite(values).all() else -np.inf

    parts = [found[max(models, key=lambda model: score(model, 1 - side))][side] for side in (0, 1)]
    by_split = tuple(float(np.mean(values)) for values in zip(*(part.by_split for part in parts), strict=True))
    return max(models, key=lambda model: score(model, 0, 1)), Measured(
        by_split, mean_defined([part.resampled_R for part in parts])
    )
