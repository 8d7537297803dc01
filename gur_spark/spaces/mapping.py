"""A linear map from the embeddings of one version to those of another, for consumers that were not retrained.

It is a ridge regression with an intercept (Hoerl and Kennard 1970), in closed form from sums, so that pairs may come in
any number and order. Unlike an alignment, which keeps distances, it may stretch, and lead to another width: it predicts
the other version's embedding. Maps compose: a map to a version and the map from there to an older one are one map.

Legend of array shapes: U = users, N = width of the new embedding, O = width of the old one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import reduce

import numpy as np

from gur_spark.arrays import Array, Mask
from gur_spark.errors import ModelError

HELD_OUT = 0.2
"""Share of the users that the penalty is chosen on."""

SALT = "map"
"""Salt of that split."""

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidate penalties, as shares of the new embedding's mean variance."""

USERS_PER_DIMENSION = 5
"""A map from N dimensions that is fitted on fewer users follows their noise."""


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """``old = new @ matrix + shift``."""

    matrix_NO: Array
    shift_O: Array
    residual: float
    """Squared distance to the old embedding over its variance, on users that the map was not fitted on; 0: nothing is
    lost.

    A composed map has the sum of its parts, an upper bound of the loss if each step loses on its own.
    """
    users: int
    """Users that it was fitted on; a composed map has the fewest of its parts."""
    via: tuple[str, ...] = ()
    """Versions that a composed map leads through."""

    def __call__(self, new_UN: Array) -> Array:
        return new_UN @ self.matrix_NO + self.shift_O

    def then(self, older: "LinearMap", between: str) -> "LinearMap":
        """Compose this map with one from ``between`` to an older version: ``(x A + a) B + b = x AB + (aB + b)``."""
        return LinearMap(
            matrix_NO=self.matrix_NO @ older.matrix_NO,
            shift_O=older(self.shift_O),
            residual=self.residual + older.residual,
            users=min(self.users, older.users),
            via=(*self.via, between, *older.via),
        )

    def to_json(self) -> str:
        values = asdict(self) | {"matrix_NO": self.matrix_NO.tolist(), "shift_O": self.shift_O.tolist()}
        return json.dumps(values, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "LinearMap":
        """Read a map.

        Raises:
            ValueError, KeyError, TypeError: the text is not a map's.
        """
        values = json.loads(text)
        matrix_NO, shift_O = (np.array(values.pop(name), dtype=np.float64) for name in ("matrix_NO", "shift_O"))
        if matrix_NO.ndim != 2 or shift_O.shape != matrix_NO.shape[1:]:
            raise ValueError(f"a matrix of shape {matrix_NO.shape} and a shift of {shift_O.shape} are no map")
        return cls(**{**values, "via": tuple(values["via"])}, matrix_NO=matrix_NO, shift_O=shift_O)


@dataclass
class Sums:
    """Sums over pairs of embeddings that a regression needs; sums of parts merge to those of the whole."""

    users: float
    new_N: Array
    old_O: Array
    within_NN: Array
    cross_NO: Array
    old_squares: float

    @classmethod
    def of(cls, new_UN: Array, old_UO: Array) -> "Sums":
        squares = float((old_UO**2).sum())
        return cls(len(new_UN), new_UN.sum(0), old_UO.sum(0), new_UN.T @ new_UN, new_UN.T @ old_UO, squares)

    def merge(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def error(self, matrix_NO: Array, shift_O: Array) -> float:
        """Squared distance of ``new @ matrix + shift`` to ``old``, summed over the users.

        It is ``|old|^2 - 2 <old, f> + |f|^2`` for the map's answer f, from the sums.
        """
        met = (self.cross_NO * matrix_NO).sum() + self.old_O @ shift_O
        moved_O = self.new_N @ matrix_NO
        answered = (matrix_NO * (self.within_NN @ matrix_NO)).sum() + 2 * moved_O @ shift_O
        return float(self.old_squares - 2 * met + answered + self.users * shift_O @ shift_O)

    def variance(self) -> float:
        """Squared distance of ``old`` to its mean, summed over the users."""
        return float(self.old_squares - self.old_O @ self.old_O / max(self.users, 1))


@dataclass
class Regression:
    """Gathers the sums of both sides of the users, and fits."""

    sides: list[Sums | None] = field(default_factory=lambda: [None, None])
    """Sums over the users to fit on, and over those held out."""

    def update(self, new_UN: Array, old_UO: Array, held_out_U: Mask) -> None:
        """Add pairs of embeddings of the same users."""
        for side, chosen_U in enumerate((~held_out_U, held_out_U)):
            if chosen_U.any():
                self.add(side, Sums.of(new_UN[chosen_U], old_UO[chosen_U]))

    def add(self, side: int, sums: Sums) -> None:
        before = self.sides[side]
        self.sides[side] = before.merge(sums) if before else sums

    def fit(self) -> LinearMap:
        """Fit the map with the penalty that is best for the users held out, and fit it again on all.

        Raises:
            ModelError: too few users.
        """
        fitted, held = self.sides
        users = sum(int(side.users) for side in self.sides if side)
        needed = USERS_PER_DIMENSION * len(fitted.new_N) if fitted else 1
        if fitted is None or held is None or users < needed:
            raise ModelError(
                f"a linear map needs {needed} users with embeddings of both versions ({USERS_PER_DIMENSION} per "
                f"dimension), there are {users}"
            )
        errors = [held.error(*_ridge(fitted, penalty)) for penalty in PENALTIES]
        best = int(np.argmin(errors))
        matrix_NO, shift_O = _ridge(fitted.merge(held), PENALTIES[best])
        variance = held.variance()
        residual = max(errors[best], 0.0) / variance if variance > 0 else 0.0
        return LinearMap(matrix_NO=matrix_NO, shift_O=shift_O, residual=residual, users=users)


def compose(maps: Sequence[LinearMap], between: Sequence[str]) -> LinearMap:
    """Compose several maps into one, the newest first; ``between`` names the versions where they meet."""
    steps = zip(maps[1:], between, strict=True)
    return reduce(lambda made, step: made.then(*step), steps, maps[0])


def _ridge(sums: Sums, penalty: float) -> tuple[Array, Array]:
    """Solve ``(C + penalty * mean variance * I)^-1 K`` of the centred sums; the intercept is not penalised."""
    new_N, old_O = sums.new_N / sums.users, sums.old_O / sums.users
    within_NN = sums.within_NN - sums.users * np.outer(new_N, new_N)
    cross_NO = sums.cross_NO - sums.users * np.outer(new_N, old_O)
    # The small constant keeps the matrix regular where nothing varies at all.
    ridge = penalty * np.trace(within_NN) / len(within_NN) + 1e-12
    matrix_NO: Array = np.linalg.solve(within_NN + ridge * np.eye(len(within_NN)), cross_NO)
    return matrix_NO, old_O - new_N @ matrix_NO
