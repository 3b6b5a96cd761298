"""A line that says how much is done, how fast, and for how long still."""

import shutil
import sys
import threading
import time
from typing import Any


class Progress:
    """Counts bytes from several threads; draws at most ten times a second.

    `stream`: what has `write` and `flush`, or None.
    """

    def __init__(self, total: int, stream: Any = None):
        self._total, self._stream = max(total, 1), stream
        self._done, self._drawn = 0, 0.0
        self._start, self._lock = time.monotonic(), threading.Lock()

    def add(self, nbytes: int) -> None:
        with self._lock:
            self._done += nbytes
            now = time.monotonic()
            if self._stream is not None and now - self._drawn > 0.1:
                self._drawn = now
                # A line that wraps could not be drawn over.
                width = shutil.get_terminal_size().columns - 1
                self._stream.write(f"\r{self.line(now)[:width]}\x1b[K")
                self._stream.flush()

    def line(self, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        speed = self._done / seconds
        left = (self._total - self._done) / max(speed, 1e-9)
        share = self._done / self._total
        bar = "#" * int(20 * share)
        return (
            f"[{bar:<20}] {100 * share:3.0f} %  {bytes_said(self._done)} of "
            f"{bytes_said(self._total)}  {bytes_said(speed)}/s  {clock(left)} left"
        )

    def end(self) -> None:
        if self._stream is not None and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def on_terminal(wanted: bool | None) -> Any:
    """Where to draw: only on a terminal, unless told."""
    return sys.stderr if wanted or (wanted is None and sys.stderr.isatty()) else None


def clock(seconds: float | int) -> str:
    """3723 -> "1:02:03"."""
    whole = min(int(seconds + 0.5), 359_999)
    hours, minutes = whole // 3600, whole // 60 % 60
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{whole % 60:02d}"


def bytes_said(n: float | int) -> str:
    """735_000_000 -> "735 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} PB"
