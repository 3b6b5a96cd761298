"""Ctrl-C and SIGTERM as an exception."""

import contextlib
import signal
from collections.abc import Iterator


class Stopped(BaseException):
    """By a signal, whose number it holds; no failure of a run, which is recorded."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM become an exception where the program is."""

    def stop(signum, frame):
        raise Stopped(signum)

    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, stop) for signum in wanted}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
