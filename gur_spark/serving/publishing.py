"""Publishing: one atomic append switches the version and date that consumers read, behind gates."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import GateError, TableError
from gur_spark.evaluate import downstream
from gur_spark.outputs import gates
from gur_spark.outputs.catalogue import find_output
from gur_spark.outputs.embeddings import EMBEDDINGS, check_widths
from gur_spark.outputs.gates import GATES_FOUND, GATES_OF, Outcome, VersionRows, to_json
from gur_spark.outputs.output import Output
from gur_spark.registry.names import VersionName
from gur_spark.registry.published import Published, check_reason, published, rollback_reason, switch, way_back
from gur_spark.serving.changes import check_follows
from gur_spark.spaces.asked import asked_spaces
from gur_spark.spaces.axes import space_of
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A publication, and the gates' outcomes."""

    published: Published
    rows: Mapping[str, int]
    """Output -> number of rows of the version and date."""
    outcomes: Sequence[Outcome] = ()
    """Outcome of each gate; none where nothing was published before."""

    @property
    def account(self) -> Account:
        """Entries for the run's row."""
        main, *others = self.rows
        counts = {"rows": self.rows[main], **{f"rows of {name}": self.rows[name] for name in others}}
        outputs = found_by_gates(self.published, self.outcomes) | {"published": str(self.published)}
        return Account(counts=counts, outputs=outputs)


def publish(
    tables: Tables, config: Config, model_version: str, as_of: date, reason: str, force: bool = False
) -> Publication:
    """Switch ``published`` to the rows of a version and date, in all outputs that the version writes.

    The new rows must pass the gates against the published ones, if there are some. ``force`` switches all the same; the
    gates that were not passed are kept with the reason.

    Raises:
        ConfigError: the reason begins like that of a rollback.
        TableError: there are no such rows, or one of them is broken, or rows mapped from them are older than they are;
            nothing was switched.
        GateError: a gate is not passed; nothing was switched. The error holds the outcome of every gate.
    """
    check_reason(reason)
    outputs = outputs_of(tables, model_version)
    rows = {output.name: _check(tables, output, model_version, as_of) for output in outputs}
    if EMBEDDINGS in outputs:
        for old in asked_spaces(tables, config.scoring, model_version):
            mapped = str(VersionName(model_version).mapped_to(old))
            _check(tables, EMBEDDINGS, mapped, as_of)
        for mapped in _mapped_rows(tables, model_version, as_of):
            check_follows(tables, mapped, model_version, as_of)
    now, new = published(tables, config.name), Published(model_version=model_version, as_of=as_of)
    outcomes: Sequence[Outcome] = ()
    if now and now != new:
        try:
            outcomes = _ask_gates(tables, config, outputs, new, now)
        except GateError as error:
            if not force:
                with kept_on_failure(Account(outputs=found_by_gates(new, error.outcomes))):
                    raise
            log.warning("publish: forced, although %s", error)
            reason = f"{reason} (forced, although {error})"
            outcomes = [outcome for outcome in error.outcomes if isinstance(outcome, Outcome)]
    switch(tables, config.name, new, tuple(output.name for output in outputs), reason)
    log.info("published %s, before: %s", new, now or "nothing")
    return Publication(published=new, rows=rows, outcomes=outcomes)


def found_by_gates(candidate: Published, outcomes: Sequence[object]) -> dict[str, str]:
    """Outputs of a run for what the gates found, passed or not, where they were asked."""
    return {GATES_OF: str(candidate), GATES_FOUND: to_json(outcomes)} if outcomes else {}


def outputs_of(tables: Tables, version: str) -> list[Output]:
    """List the outputs that a version writes; means have ``embeddings`` alone."""
    name = VersionName.parse(version)
    if not tables.exists("models") or name != VersionName(name.base):
        return [EMBEDDINGS]
    rows = tables.read("models").where(F.col("model_version") == version).select("outputs").collect()
    return [find_output(output) for output in (rows[0]["outputs"] if rows else [EMBEDDINGS.name])]


def _mapped_rows(tables: Tables, version: str, as_of: date) -> list[str]:
    """List the names of the rows that were mapped from a version's rows of a date, asked for any more or not."""
    rows = tables.read(EMBEDDINGS.name).where(F.col("as_of") == F.lit(as_of)).select("model_version").distinct()
    return sorted(row[0] for row in rows.where(F.col("model_version").startswith(f"{version}@")).collect())


def _check(tables: Tables, output: Output, version: str, as_of: date) -> int:
    """Count the rows, and check that there are some, all whole, with vectors of one width."""
    rows = output.check(tables, version, as_of)
    if "embedding" in output.schema("string"):
        check_widths(tables, output, version, as_of)
    return rows


def _ask_gates(
    tables: Tables, config: Config, outputs: Sequence[Output], new: Published, now: Published
) -> list[Outcome]:
    """Collect the outcomes of every gate, output by output.

    Raises:
        GateError: one is not passed.
    """
    found: list[Outcome] = []
    before_outputs = outputs_of(tables, now.model_version)
    for output in outputs:
        if output not in before_outputs:
            log.info("publish: %s has no %s to compare with", now.model_version, output.name)
            continue
        sides = [version_rows(tables, output, one) for one in (new, now)]
        further = downstream.outcomes(tables, config, *sides) if output is EMBEDDINGS else ()
        try:
            found += gates.check(sides[0], sides[1], config.gates, further)
        except GateError as error:
            raise GateError(str(error), [*found, *error.outcomes]) from error
    for outcome in found:
        log.info("publish: %s: passed", outcome)
    return found


def check_replacement(
    tables: Tables, config: Config, output: Output, rows: DataFrame, version: str, as_of: date
) -> None:
    """Check that rows may replace those of the same version and date, which consumers may read already.

    Raises:
        GateError: they are published, and the new ones do not pass a gate against them.
    """
    now = published(tables, config.name)
    if now == Published(model_version=version, as_of=as_of):
        before = version_rows(tables, output, now)
        if not before.rows.isEmpty():
            gates.check(replace(before, rows=rows), before, config.gates)


def version_rows(tables: Tables, output: Output, one: Published) -> VersionRows:
    """Read the rows of a version and date, with the space of their vectors."""
    return VersionRows(
        output=output.name,
        model_version=one.model_version,
        as_of=one.as_of,
        rows=output.select(tables, one.model_version, one.as_of),
        space=space_of(tables, one.model_version),
    )


def rollback(tables: Tables, pipeline: str, reason: str) -> Published:
    """Publish the previous version and date again, and return them.

    The gates are not asked, but the rows must exist. A second rollback goes one step further back.

    Raises:
        TableError: nothing else was published before, or its rows are gone; nothing was switched.
    """
    history = way_back(tables, pipeline)
    if len(history) < 2:
        raise TableError(f"nothing was published for pipeline '{pipeline}' before what is published now")
    *_, before, now = history
    outputs = outputs_of(tables, before.model_version)
    for output in outputs:
        _check(tables, output, before.model_version, before.as_of)
    names = tuple(output.name for output in outputs)
    switch(tables, pipeline, before, names, rollback_reason(now, reason))
    return before
