"""Embeddings of a version in the space of an older one, for consumers that were trained on the older one.

A map is fitted once, on the users with embeddings of both versions at one date, and kept in the new version's artefact
(``maps/OLD.json``). Where maps already lead there through other versions, it is their composition. It is never fitted
again, so that rows of different dates are in one space. Mapped rows stand in ``embeddings`` under the name ``NEW@OLD``,
so that no reader takes them for rows of either version.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.arrays import ArrowMapper, matrix, to_lists
from gur_spark.config.training import Scoring
from gur_spark.errors import ModelError, nearest
from gur_spark.outputs.embeddings import EMBEDDINGS, select_embeddings
from gur_spark.outputs.notes import Note
from gur_spark.registry.names import VersionName
from gur_spark.spaces.asked import asked_spaces
from gur_spark.spaces.mapping import HELD_OUT, SALT, LinearMap, Regression, Sums, compose
from gur_spark.splits import held_out
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")

_ARRAYS = ("new", "old", "within", "cross")
_SUMS = ", ".join(["side INT, users DOUBLE, squares DOUBLE", *(f"{name} ARRAY<DOUBLE>" for name in _ARRAYS)])


def map_embeddings(tables: Tables, scoring: Scoring, version: str, as_of: date, run_id: str) -> dict[str, str]:
    """Write a version's rows of a date once more for each older version that is wanted, or that was mapped to before.

    Versions of ``scoring.in_space_of`` are wanted. Returns entries for the outputs of the run's row.

    Raises:
        ModelError: there is no such version, or neither a map nor users to fit one on.
    """
    artefacts, written = _artefacts(tables), {}
    asked = asked_spaces(tables, scoring, version)
    for old in dict.fromkeys((*asked, *_mapped_before(tables, artefacts[version], version, as_of))):
        found, name = _kept_map(tables, artefacts, version, old, run_id), str(VersionName(version, space=old))
        rows = select_embeddings(tables, version, as_of)
        mapped = rows.mapInArrow(_mapper(found, name), rows.schema)
        within = f"model_version = '{name}' AND as_of = DATE '{as_of}'"
        note = Note(model_version=name, as_of=as_of, mapped_from=version)
        tables.replace(mapped, EMBEDDINGS.name, within, note.to_json())
        written[f"embeddings {as_of} in the space of {old}"] = f"model_version={name}"
        log.info("score: %s at %s is also there as %s: residual %.3f", version, as_of, name, found.residual)
    return written


def kept_maps(artefact: str) -> dict[str, LinearMap]:
    """Read the maps of a version's artefact, by the older version that each leads to.

    Raises:
        ModelError: a map is damaged.
    """
    return {old: _read(path) for old, path in _maps(artefact)}


def _artefacts(tables: Tables) -> dict[str, str]:
    """Read the folder of each version."""
    rows = tables.read("models", made_by="train").select("model_version", "path").collect()
    return {row["model_version"]: row["path"] for row in rows}


def _mapped_before(tables: Tables, artefact: str, version: str, as_of: date) -> list[str]:
    """List the older versions that rows of this date were mapped to. They must follow when the rows are replaced."""
    there = [old for old, _ in _maps(artefact)]
    if not there:
        return []
    rows = tables.read("embeddings").where(F.col("as_of") == F.lit(as_of)).select("model_version").distinct()
    names = {row[0] for row in rows.collect()}
    return [old for old in there if str(VersionName(version, space=old)) in names]


def _kept_map(tables: Tables, artefacts: Mapping[str, str], version: str, old: str, run_id: str) -> LinearMap:
    """Read the map that is kept, or make one and keep it."""
    if old not in artefacts:
        known = sorted(artefacts)
        raise ModelError(f"no model version '{old}' to map to; available: {known}{nearest(old, known)}")
    path = _path(artefacts[version], old)
    if storage.exists(path):
        return _read(path)
    between = _chain(artefacts, version, old)
    if between is not None:
        steps = zip((version, *between), (*between, old), strict=True)
        found = compose([_read(_path(artefacts[new], to)) for new, to in steps], between)
    else:
        found = _fit(tables, version, old)
    # The file is moved into place, so that a reader sees the whole map or none. If two runs fit one, both use the
    # first.
    part = f"{path}.{run_id}.part"
    storage.write_text(part, found.to_json())
    if storage.exists(path):
        storage.remove_file(part)
    else:
        storage.move(part, path)
    return _read(path)


def _chain(artefacts: Mapping[str, str], version: str, old: str) -> list[str] | None:
    """Find the shortest way of kept maps between two versions: the versions in between; None where there is no way."""
    ways: deque[tuple[str, ...]] = deque([(version,)])
    seen = {version}
    while ways:
        way = ways.popleft()
        for to, _ in _maps(artefacts[way[-1]]):
            if to == old:
                return list(way[1:])
            if to in artefacts and to not in seen:
                seen.add(to)
                ways.append((*way, to))
    return None


def _maps(artefact: str) -> Iterator[tuple[str, str]]:
    """List the versions that an artefact's maps lead to, and their files."""
    for name in sorted(storage.sizes(storage.join(artefact, "maps"))):
        if name.endswith(".json"):
            yield name.removesuffix(".json"), storage.join(artefact, "maps", name)


def _path(artefact: str, old: str) -> str:
    return storage.join(artefact, "maps", f"{old}.json")


def _read(path: str) -> LinearMap:
    try:
        return LinearMap.from_json(storage.read_text(path))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}") from error


def _fit(tables: Tables, version: str, old: str) -> LinearMap:
    """Fit a map on the newest date with embeddings of both versions.

    Raises:
        ModelError: there is no such date, or too few users have both.
    """
    dates = {name: EMBEDDINGS.dates(tables, name) for name in (version, old)}
    common = set(dates[version]) & set(dates[old])
    if not common:
        have = "; ".join(f"{name} has {[str(day) for day in days]}" for name, days in dates.items())
        raise ModelError(
            f"no map leads from {version} to {old}, and to fit one both must have embeddings of one date: {have}; run "
            f"score --model {old} --as-of a date of the other first"
        )
    day = max(common)
    regression = Regression()
    for row in _sums(*(select_embeddings(tables, name, day) for name in (version, old))).collect():
        within, cross = (np.array(row[name]).reshape(len(row["new"]), -1) for name in ("within", "cross"))
        sums = Sums(row["users"], np.array(row["new"]), np.array(row["old"]), within, cross, row["squares"])
        regression.add(row["side"], sums)
    try:
        found = regression.fit()
    except ModelError as error:
        raise ModelError(f"from {version} to {old} at {day}: {error}") from error
    log.info("score: map from %s to %s fitted on %d users of %s", version, old, found.users, day)
    return found


def _sums(new: DataFrame, old: DataFrame) -> DataFrame:
    """Add up the sums of a regression, a row per partition and side of the users."""
    other = old.select("user_id", F.col("embedding").alias("old"))
    pairs = new.select("user_id", F.col("embedding").alias("new")).join(other, "user_id")
    return pairs.mapInArrow(_partial_sums, _SUMS)


def _partial_sums(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    regression = Regression()
    for batch in batches:
        if batch.num_rows:
            sides_U = held_out(batch["user_id"], HELD_OUT, SALT)
            regression.update(matrix(batch["new"]), matrix(batch["old"]), sides_U)
    for side, sums in enumerate(regression.sides):
        if sums:
            arrays = (sums.new_N, sums.old_O, sums.within_NN.ravel(), sums.cross_NO.ravel())
            numbers = {
                "side": pa.array([side], pa.int32()),
                "users": [float(sums.users)],
                "squares": [sums.old_squares],
            }
            lists = {name: pa.array([values]) for name, values in zip(_ARRAYS, arrays, strict=True)}
            yield pa.RecordBatch.from_pydict(numbers | lists)


def _mapper(found: LinearMap, name: str) -> ArrowMapper:
    """Make the function that maps batches of ``embeddings``, in the order of its columns."""

    def mapped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in batches:
            moved_UO = found(matrix(rows["embedding"])).astype(np.float32)
            moved = {"embedding": to_lists(moved_UO), "model_version": pa.array([name] * rows.num_rows, pa.string())}
            yield pa.RecordBatch.from_pydict({c: moved.get(c, rows[c]) for c in rows.schema.names})

    return mapped
