"""The files of the synthetic log."""

import gzip
import json
import shutil
from pathlib import Path

from gur_spark.errors import GurError
from gur_spark.synthetic.landings import generate

FORMAT = 2
"""Number that must be raised when the same arguments give another log, so that an old log is written anew."""

DAYS = 243
"""Days of a log."""
HEADER = "client,booked_at,merchant_category,channel,amount"
COMPLETE = "complete.json"
"""File that is written last, with the arguments and counts of the log."""


def write(out: Path, users: int, seed: int, days: int = DAYS) -> bool:
    """Write a log to the folder ``out``, whole or not at all; returns False where the same log is already there.

    Raises:
        GurError: ``out`` holds something else.
    """
    arguments = {"format": FORMAT, "users": users, "seed": seed, "days": days}
    marker = out / COMPLETE
    if marker.is_file() and json.loads(marker.read_text())["arguments"] == arguments:
        return False
    if out.exists() and not marker.is_file():
        raise GurError(f"'{out}' exists and is not a synthetic log; name another folder, or remove it")
    log = generate(users, seed, days)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "landings").mkdir(parents=True)
    for day, lines in log.landings.items():
        content = "\n".join([HEADER, *lines, ""]).encode()
        # The header has no time of writing, so that the same log has the same bytes.
        (partial / "landings" / f"{day}.csv.gz").write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    log.labels.to_csv(partial / "labels.csv", index=False)
    log.profiles.to_csv(partial / "profiles.csv", index=False)
    (partial / marker.name).write_text(json.dumps({"arguments": arguments, "counts": log.counts}, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return True
