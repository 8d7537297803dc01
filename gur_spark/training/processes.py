"""Training in several processes of one machine; torch's collectives keep them in step."""

import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch.multiprocessing.spawn import ProcessException, start_processes

from gur_spark.errors import TrainingError

Found = TypeVar("Found")

log = logging.getLogger("gur_spark")


def in_processes(run: Callable[[], Found], count: int, threads: int) -> Found:
    """Call ``run`` in ``count`` new processes, and return the result of the first.

    The processes end with this one, however it ends.

    Raises:
        TrainingError: a process failed, with its own message; or it was killed, for instance for memory.
    """
    with TemporaryDirectory() as folder:
        # A file, not a pipe: a pipe blocks once it is full, and nobody reads while the processes run.
        result = Path(folder, "result")
        # Results travel as bytes: torch's own way to pass a module shares its weights, and all processes would update
        # them.
        arguments = (pickle.dumps(run), count, threads, _free_port(), log.getEffectiveLevel(), result)
        try:
            start_processes(_placed, arguments, nprocs=count, start_method="spawn")  # type: ignore[no-untyped-call]
        except ProcessException as error:
            raise TrainingError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from error
        found: Found = pickle.loads(result.read_bytes())
        return found


def _placed(rank: int, run: bytes, count: int, threads: int, port: int, level: int, result: Path) -> None:
    # Torch has the kernel send this signal when the parent is killed; a scheduler's processes may ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    place = {"LOCAL_RANK": rank, "WORLD_SIZE": count, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(threads)
    if rank == 0:
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
        log.setLevel(level)
    found = pickle.loads(run)()
    if rank == 0:
        result.write_bytes(pickle.dumps(found))


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
