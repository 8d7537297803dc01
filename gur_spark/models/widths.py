"""Default width of an embedding table."""

import math

WIDEST = 24


def fastai_width(size: int) -> int:
    """Width of a table of ``size`` ids by the rule of fastai's tabular models, up to ``WIDEST``."""
    return min(WIDEST, round(1.6 * math.pow(size, 0.56)))
