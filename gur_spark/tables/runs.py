"""The table ``runs``: one row for every run of a job, also when it fails."""

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from gur_spark import schema
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")

WITH_LOSSES = "succeeded with losses"
"""Status of a run that succeeded although something was left out, below the limit for it."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Inputs, counts and outputs of a function, its part of a run's row."""

    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    """Sentences on what was left out although the run succeeded."""


@contextmanager
def kept_on_failure(account: Account) -> Iterator[None]:
    """Let an error that is raised inside carry the account as it is then, so that the row of the failed run has it."""
    try:
        yield
    except BaseException as error:
        setattr(error, _ACCOUNTS, [*getattr(error, _ACCOUNTS, []), account])
        raise


_ACCOUNTS = "gur_spark_accounts"
"""Attribute of an error for the accounts that it carries."""


@dataclass(kw_only=True)
class Run:
    """Record of a run, which the job fills while it runs."""

    id: str
    job: str
    parameters: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)
    """Name of an input -> its version, such as a landing's fingerprint or a snapshot's folder."""
    counts: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    """Sentences on what was left out although the run succeeded."""
    exit_code: int = 0
    """Exit code of the process after a run that succeeded, by which a scheduler can tell results apart."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0

    def add(self, account: Account) -> None:
        """Add a function's account. Counts of one name are added up."""
        self.inputs |= account.inputs
        self.outputs |= account.outputs
        self.losses += account.losses
        for name, count in account.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def totals(self) -> str:
        """The counts that are not zero, without those of single logs, which are part of others."""
        shown = {name: n for name, n in self.counts.items() if n and name.partition(" ")[2] not in self.counts}
        return ", ".join(f"{name} {count:,}" for name, count in shown.items())

    def line(self) -> str:
        """Line for the log."""
        return f"{self.job}: {self.totals() or 'nothing to do'} ({self.seconds:.1f} s)"


@contextmanager
def record(tables: Tables, job: str, parameters: dict[str, str]) -> Iterator[Run]:
    """Record a run in ``runs`` with its status: ``succeeded``, ``succeeded with losses`` and these, or ``failed`` and
    the error.

    The row of a failed run also has the accounts that the error carries (``kept_on_failure``).
    """
    run = Run(id=uuid4().hex, job=job, parameters=parameters)
    clock = time.monotonic()
    try:
        yield run
    except BaseException as error:
        run.seconds = time.monotonic() - clock
        for account in getattr(error, _ACCOUNTS, []):
            run.add(account)
        message = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        try:
            _append(tables, run, "failed", message[:20_000])
        except Exception:
            # This error must not hide the first one.
            log.exception("%s failed, and its row in runs could not be written", job)
        raise
    run.seconds = time.monotonic() - clock
    if run.losses:
        _append(tables, run, WITH_LOSSES, "\n".join(run.losses)[:20_000])
    else:
        _append(tables, run, "succeeded", None)
    log.info(run.line())


def _append(tables: Tables, run: Run, status: str, error: str | None) -> None:
    row = (
        run.id,
        run.job,
        run.parameters,
        run.inputs,
        run.counts,
        run.outputs,
        run.started,
        run.seconds,
        status,
        error,
    )
    tables.create("runs", schema.RUNS)
    tables.append(tables.spark.createDataFrame([row], schema.RUNS).coalesce(1), "runs")
