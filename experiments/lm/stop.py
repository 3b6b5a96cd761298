"""Ctrl-C and SIGTERM: the first ends the run between two steps, a second at once."""

import contextlib
import signal


class Stopped(BaseException):
    """The user, or the system, wants the run to end; it can be continued."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stop:
    """Raises Stopped when a signal comes, or at the next `check` within `later`."""

    def __init__(self):
        self._later, self._signum = False, None

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._handle)

    def _handle(self, signum, frame):
        del frame
        signal.signal(signum, signal.SIG_DFL)
        self._signum = signum
        if not self._later:
            raise Stopped(signum)

    def check(self) -> None:
        if self._signum is not None:
            raise Stopped(self._signum)

    @contextlib.contextmanager
    def later(self):
        """Inside, nothing is torn: a signal waits for `check`, or for the end."""
        self._later = True
        try:
            yield
            self.check()
        finally:
            self._later = False
