"""A job, killed (SIGKILL, with its JVM and workers) right before or after its first commit to a table.

python -m tests.killed before|after TABLE JOB [options of jobs/JOB.py]

To be started as the leader of its own process group.
"""

import importlib
import os
import signal
import sys
from typing import Any, NoReturn

from gur_spark.tables.delta import Tables

save = Tables._save


def die() -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("killed processes do not come here")


def save_and_die(tables: Tables, writer: Any, table: str) -> None:
    if table == sys.argv[2] and sys.argv[1] == "before":
        die()
    save(tables, writer, table)
    if table == sys.argv[2]:
        die()


if __name__ == "__main__":
    Tables._save = save_and_die  # type: ignore[method-assign]
    sys.exit(importlib.import_module(f"jobs.{sys.argv[3]}").main(sys.argv[4:]))
