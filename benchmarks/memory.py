"""Memory of Spark's processes while a block runs."""

import threading

import psutil


class PeakMemory:
    """Largest resident memory of the child processes, Java and the Python workers apart, sampled five times a second.

    Pages that workers share count for each of them.
    """

    def __enter__(self) -> "PeakMemory":
        self.java_mb = self.python_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.2):
            java, python = 0, 0
            for process in me.children(recursive=True):
                try:
                    resident = process.memory_info().rss
                    is_java = process.name() == "java"
                except psutil.NoSuchProcess:
                    continue
                java, python = java + is_java * resident, python + (not is_java) * resident
            self.java_mb = max(self.java_mb, java / 2**20)
            self.python_mb = max(self.python_mb, python / 2**20)
