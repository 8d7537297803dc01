"""Names of the linear dimensions of an embedding, made of the inputs that weigh most in each."""

# C = columns, K = width of the linear part

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gur_spark.arrays import Array
from gur_spark.batches.layout import Layout
from gur_spark.features.declare import windows
from gur_spark.models.gur.linear_fit import LinearFit
from gur_spark.models.gur.linear_path import LinearPath, empty_flags
from gur_spark.models.kind import Dimension, Texts
from gur_spark.schema import MISSING_ID, UNKNOWN_ID

NAMED = 3
"""Loadings, at most, that a name holds: the largest, and those of at least half its size."""
LISTED = 10
"""Loadings, at most, that are kept of a dimension."""
LEAST = 0.005
"""Size below which a loading is not kept."""


def name_dimensions(
    path: LinearPath, layout: Layout, fit: LinearFit, texts: Texts | None = None, rotation_KK: Array | None = None
) -> tuple[Dimension, ...]:
    """Name the dimensions of a fitted linear path.

    Args:
        texts: looks up the texts of ids; without it, ids are numbers.
        rotation_KK: the rotation into the space of an older version.
    """
    directions_CK = path.directions_CK.double().numpy()
    rotation_KK = np.eye(directions_CK.shape[1]) if rotation_KK is None else rotation_KK
    directions_CK = directions_CK @ rotation_KK
    variance_K = np.einsum("ik,ij,jk->k", rotation_KK, fit.covariance_KK, rotation_KK) / (fit.total or 1)
    sizes_CK = np.abs(directions_CK).round(6)
    chosen_CK = np.argsort(-sizes_CK, axis=0, kind="stable")[:LISTED]
    labels = InputNames(path, layout).of(set(chosen_CK.ravel().tolist()), texts)
    found = []
    for k, columns in enumerate(chosen_CK.T):
        loadings = {labels[c]: round(float(directions_CK[c, k]), 4) for c in columns.tolist() if sizes_CK[c, k] > LEAST}
        found.append(Dimension(number=k + 1, name=name_of(loadings), variance=float(variance_K[k]), loadings=loadings))
    return tuple(found)


def name_of(loadings: Mapping[str, float]) -> str:
    """Write the largest loadings. By hand: {a: 0.714, b: -0.4, c: 0.3} is ``a +.71, b -.40``."""
    named = [
        (label, weight) for label, weight in loadings.items() if abs(weight) >= max(map(abs, loadings.values())) / 2
    ]
    return ", ".join(f"{label} {weight:+.2f}".replace("0.", ".", 1) for label, weight in named[:NAMED])


class InputNames:
    """Names of the columns of a linear path.

    A number has the name of its column. A flag is ``events_7d=0``, a share of a histogram ``category_30d[groceries]``,
    an attribute ``country[GB]``.
    """

    def __init__(self, path: LinearPath, layout: Layout) -> None:
        self._flat = [column.name for column in layout.dense]
        self._flat += [f"{layout.dense[d].name}=0" for d in empty_flags(layout)]
        self._groups = [(name, first, size) for name, first, size, _ in path.groups()]
        self._layout = layout
        columns = (*layout.manifest.ids, *layout.manifest.sets)
        self._field = {name: name for name in layout.manifest.categorical} | {c.name: c.field or "" for c in columns}

    def of(self, columns: Iterable[int], texts: Texts | None) -> dict[int, str]:
        """Name columns by their position."""
        shares = {c: self._share(c) for c in sorted(columns) if c >= len(self._flat)}
        ids: dict[str, set[int]] = {}
        for name, _, number in shares.values():
            ids.setdefault(self._field[name], set()).add(number)
        known = {field: texts(field, sorted(some)) for field, some in ids.items()} if texts else {}
        made = {c: self._flat[c] for c in columns if c < len(self._flat)}
        for c, (name, window, number) in shares.items():
            text = id_text(number, known.get(self._field[name], {}))
            made[c] = f"{name}{window}[{text}]"
        return made

    def _share(self, column: int) -> tuple[str, str, int]:
        """Find the input, the window's ending and the id of a share."""
        name, first, size = [group for group in self._groups if group[1] <= column][-1]
        window, number = divmod(column - first, size)
        hours: Sequence[int] = self._layout.windows_of[name]
        return name, f"_{windows.name_of(hours[window])}" if name in self._layout.manifest.categorical else "", number


def id_text(number: int, texts: Mapping[int, str]) -> str:
    """Text of an id; its number where the text is not known."""
    reserved = {UNKNOWN_ID: "unknown", MISSING_ID: "missing"}
    return reserved.get(number) or texts.get(number, f"id {number}")
