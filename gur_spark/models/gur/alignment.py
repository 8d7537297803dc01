"""Alignment: a new version's embeddings are moved into the space of an older one, so that its consumers can read them.

It is an orthogonal Procrustes motion (Schönemann 1966) with a shift, fitted on stable users. The linear and the
nonlinear part have a rotation each. The motion is rigid, so distances between users stay those of the new version. The
remaining difference is the residual. Embeddings of length 1 are only rotated, because a shift would change their
lengths.

Legend of array shapes: N = users, L = width of an embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gur_spark.arrays import Array
from gur_spark.errors import ModelError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.windows import DAY_HOURS, in_words
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Artefact
from gur_spark.snapshots.files import row_groups

if TYPE_CHECKING:
    from gur_spark.models.gur.scorer import GurScorer

Embed = Callable[[pa.RecordBatch], npt.NDArray[Any]]
"""Function: rows of a snapshot -> vectors (N, L)."""

USERS_PER_DIMENSION = 5
"""A motion of L dimensions that is fitted on fewer users follows their noise."""


@dataclass(frozen=True)
class Alignment:
    """``aligned = new @ rotation + shift``."""

    to: str
    """The version with the space that it leads to."""
    rotation_LL: Array
    shift_L: Array
    residual: float
    """Squared distance between the two sides over the old side's variance: 0 for the same space, 1 for nothing in
    common (without a shift it may be more)."""
    users: int


class Procrustes:
    """The motion that brings pairs of embeddings nearest to each other, from sums; pairs may come in any number.

    The linear part is rotated to the linear part, and the nonlinear part to the nonlinear part.
    """

    def __init__(self, widths: Sequence[int], shift: bool = True) -> None:
        """Take the ``widths`` of the parts, which add up to L."""
        width = sum(widths)
        self._ends = np.cumsum(widths)
        self.users, self._shift = 0, shift
        self._new_L, self._old_L = np.zeros(width), np.zeros(width)
        self._cross_LL = np.zeros((width, width))
        self._squares = np.zeros(2)

    def update(self, new_NL: Array, old_NL: Array) -> None:
        self.users += len(new_NL)
        self._new_L += new_NL.sum(0)
        self._old_L += old_NL.sum(0)
        self._cross_LL += new_NL.T @ old_NL
        self._squares += (new_NL**2).sum(), (old_NL**2).sum()

    def fit(self, to: str) -> Alignment:
        """Fit the motion: with ``U S V'`` of a part's cross-product, centred where there is a shift, its rotation is
        ``U V'``.

        The residual is ``(|new|^2 + |old|^2 - 2 sum S) / v`` over the same sides, with the ``S`` of all parts; v is
        ``|old|^2`` of the centred old side.
        """
        n = max(self.users, 1)
        means = self._new_L / n, self._old_L / n
        new_L, old_L = means if self._shift else np.zeros((2, len(self._new_L)))
        cross_LL = self._cross_LL - n * np.outer(new_L, old_L)
        rotation_LL, common = np.zeros_like(cross_LL), 0.0
        for first, end in pairwise((0, *self._ends)):
            left, values, right = np.linalg.svd(cross_LL[first:end, first:end])
            rotation_LL[first:end, first:end] = left @ right
            common += values.sum()
        new, old = self._squares - n * np.array([new_L @ new_L, old_L @ old_L])
        variance = self._squares[1] - n * means[1] @ means[1]
        residual = float((new + old - 2 * common) / variance) if variance > 0 else 1.0
        return Alignment(to, rotation_LL, old_L - new_L @ rotation_LL, max(residual, 0.0), self.users)


def align(new: Embed, old: "GurScorer", model: GurModel, snapshots: Sequence[str], to: str) -> Alignment:
    """Fit the motion from a new version to an older one on the stable users of the last of the snapshots.

    Args:
        new: embeds rows of the snapshot, (N, L).
        model: the settings of both versions that ``check_alignable`` compares.
        snapshots: folders, by date.
        to: the older version's name.
    """
    widths = [width for width in (model.linear_width, model.nonlinear_width) if width]
    fitted = Procrustes(widths, shift=not model.unit_norm)
    for rows in _stable(old.layout.manifest, snapshots[-1], old.layout.columns):
        fitted.update(new(rows).astype(np.float64), old.vectors(rows).astype(np.float64))
    return fitted.fit(to)


def check_stable_users(old: Artefact, snapshots: Sequence[str]) -> None:
    """Check that a motion can be fitted, without embedding anybody, because training takes long.

    Raises:
        ModelError: there are too few stable users.
    """
    manifest, width = old.manifest, cast(GurModel, old.model).latent_dim
    users = sum(rows.num_rows for rows in _stable(manifest, snapshots[-1], []))
    needed = USERS_PER_DIMENSION * width
    if users < needed:
        window = manifest.standard_windows[-1].length or 0
        raise ModelError(
            f"alignment to {old.version} needs {needed} stable users ({USERS_PER_DIMENSION} per dimension), with an "
            f"event in the last {in_words(window)} and one {window / 4 / DAY_HOURS:g} days ago or before; "
            f"{snapshots[-1]} has {users}"
        )


def _stable(manifest: Manifest, snapshot: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield rows of the users with an event in the longest window and a first event at least a quarter of it ago."""
    window = manifest.standard_windows[-1]
    active, tenure = f"events_{window.name}", "tenure_days"
    quarter = (window.length or 0) / DAY_HOURS / 4
    for group in row_groups(snapshot):
        for rows in group.read(list(dict.fromkeys(["user_id", active, tenure, *columns])), 8192):
            stable = (rows[active].to_numpy() > 0) & (tenures(rows) >= quarter)
            kept = rows.filter(pa.array(stable))
            if kept.num_rows:
                yield kept


def tenures(rows: pa.RecordBatch) -> Array:
    """Days since the first event; -1 for a user without events."""
    days: Array = np.nan_to_num(rows["tenure_days"].to_numpy(zero_copy_only=False), nan=-1.0)
    return days


def check_alignable(old: Artefact, manifest_hash: str, vocabulary_hash: str, model: GurModel) -> None:
    """Check that an older version can embed the new one's training rows.

    Raises:
        ModelError: something differs; the message names it.
    """
    older = cast(GurModel, old.model)
    for what, there, wanted in (
        ("manifest", old.manifest.hash, manifest_hash),
        ("vocabulary", old.vocabulary.hash, vocabulary_hash),
        ("latent_dim", older.latent_dim, model.latent_dim),
        ("unit_norm", older.unit_norm, model.unit_norm),
    ):
        if there != wanted:
            raise ModelError(
                f"cannot align to {old.version}: its {what} is {there}, in this training it is {wanted}; train on "
                "snapshots of its manifest and vocabulary with its latent_dim and unit_norm, or without --align-to"
            )
    if older.linear_width != model.linear_width:
        raise ModelError(
            f"cannot align to {old.version}: {_linear_part(older)} in its embeddings, and {_linear_part(model)} in "
            f"these; linear and other numbers must not be mixed. Set model.linear_dim to {older.linear_width}, or "
            "train without --align-to and name that version in scoring.in_space_of"
        )


def _linear_part(model: GurModel) -> str:
    if not model.linear_width:
        return "no number is linear"
    return f"the first {model.linear_width} numbers are linear (rotated principal components)"
