"""A cluster that is lost ends the command with a sentence.

When a cluster's head is gone, its other nodes work on for a while, and then Ray's core ends the driver's process with
code 1 and not a word. Nothing in Python can catch that, so the core is asked to wait longer, and a thread knocks at
the head meanwhile and interrupts the main thread after a minute: not at once, since a head that keeps its state
elsewhere may come back. Where the main thread waits inside Ray's core and cannot be interrupted, the thread says the
sentence itself.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from lesionary.errors import InternalError

# How long Ray's core waits, read when Ray is imported; half of it is ours, the rest is for the way out.
_CORE_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
_CORE_PATIENCE_SECONDS = 120
_STUCK_SECONDS = 10.0

_LOOK_SECONDS = 2.0
_KNOCK_SECONDS = 5.0


def ask_for_patience() -> None:
    """Have Ray's core wait longer than we do; before Ray is imported."""
    os.environ.setdefault(_CORE_PATIENCE, str(_CORE_PATIENCE_SECONDS))


@contextlib.contextmanager
def ending_with_the_cluster(head: str, where: str, leave: Callable[[], None]) -> Iterator[None]:
    """Watch over the connected cluster's head for the duration of the block, then leave the cluster.

    Args:
        head: its host and port.
        where: the cluster, as the person named it.
        leave: says goodbye to the cluster; not called where nobody would answer.

    Raises:
        InternalError: the head did not answer for a minute.
    """
    lost = InternalError(
        "the Ray cluster was lost: its head does not answer any more",
        where=where,
        next_step="run the same command again once there is a cluster; what was committed is kept",
    )
    watch = _Watch(head, lost)
    watch.start()
    try:
        try:
            yield
        finally:
            if not watch.lost:
                leave()
    except KeyboardInterrupt:
        if watch.lost:
            raise lost from None
        raise
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Knocks at a cluster's head, and interrupts the main thread when it is gone for good."""

    def __init__(self, address: str, sentence: Exception) -> None:
        super().__init__(name="cluster-watch", daemon=True)
        self._sentence = sentence
        host, _, port = address.rpartition(":")
        self._place = (host.strip("[]"), int(port))
        self._patience_s = float(os.environ[_CORE_PATIENCE]) / 2
        self._stopped = threading.Event()
        self.lost = False

    def run(self) -> None:
        heard = time.monotonic()
        while not self._stopped.wait(_LOOK_SECONDS):
            if self._answers():
                heard = time.monotonic()
            elif time.monotonic() - heard >= self._patience_s and not self._stopped.is_set():
                self.lost = True
                # A real signal: it also ends what the main thread waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                if not self._stopped.wait(_STUCK_SECONDS):
                    print(f"lesionary: {self._sentence}", file=sys.stderr, flush=True)
                    os._exit(1)
                return

    def stop(self) -> None:
        """Look no further."""
        self._stopped.set()

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._place, _KNOCK_SECONDS).close()
        except OSError:
            return False
        return True
