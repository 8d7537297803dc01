"""Mean and standard deviation of columns whose rows come batch by batch."""

# B = rows of a batch, T = columns

import numpy as np
import numpy.typing as npt

from gur_spark.arrays import Array


class Moments:
    """Count, mean and sum of squared deviations per column, merged batch by batch in float64 (Chan et al. 1983)."""

    def __init__(self, width: int) -> None:
        self.count_T: Array = np.zeros(width)
        self.mean_T: Array = np.zeros(width)
        self.deviation_T: Array = np.zeros(width)

    def update(self, values_BT: npt.ArrayLike) -> None:
        """Add rows, of shape (B, T); NaN is no value."""
        x_BT = np.asarray(values_BT, dtype=np.float64)
        there_BT = ~np.isnan(x_BT)
        count_T = there_BT.sum(0)
        mean_T = np.where(there_BT, x_BT, 0).sum(0) / np.maximum(count_T, 1)
        total_T = np.maximum(self.count_T + count_T, 1)
        # An infinite value makes its column's mean infinite or NaN, which the reader of the mean refuses.
        with np.errstate(invalid="ignore"):
            deviation_T = np.where(there_BT, (x_BT - mean_T) ** 2, 0).sum(0)
            step_T = mean_T - self.mean_T
            self.deviation_T += deviation_T + step_T**2 * self.count_T * count_T / total_T
            self.mean_T += step_T * count_T / total_T
        self.count_T += count_T

    def std(self) -> Array:
        """Population standard deviation; 1 for a constant column, which is then only centred."""
        std_T: Array = np.sqrt(self.deviation_T / np.maximum(self.count_T, 1))
        return np.where(std_T > 1e-6 * np.maximum(1.0, np.abs(self.mean_T)), std_T, 1.0)
