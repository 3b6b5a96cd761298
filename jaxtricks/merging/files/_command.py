"""`jaxtricks merge` and `jaxtricks average`: flags to arguments, errors to one line."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ._tensors import MergeError


def merge(args: argparse.Namespace) -> int:
    """The exit status: 0, 2 with one line on stderr, or 128 + signal."""
    return _told(lambda: _merge(args))


def average(args: argparse.Namespace) -> int:
    """The exit status: as of `merge`."""
    return _told(lambda: _average(args))


def _told(work: Callable[[], Path | None]) -> int:
    try:
        with _stoppable():
            out = work()
    except MergeError as error:
        print(f"jaxtricks: {error}", file=sys.stderr)
        return 2
    except _Stopped as stopped:
        print("jaxtricks: stopped; nothing is left of it", file=sys.stderr)
        return 128 + stopped.args[0]
    if out is not None:
        print(out)
    return 0


class _Stopped(BaseException):
    """By which signal; nothing but the command catches it."""


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM leave through what cleans up; of the main thread."""

    def stop(signum, frame):
        del frame
        raise _Stopped(signum)

    signals = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        signals = ()
    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _merge(args: argparse.Namespace) -> Path | None:
    from . import _merge

    shared = {
        "models": _pairs("--model", args.model),
        "tied": _pairs("--tied", args.tied),
        "workers": args.workers,
    }
    if args.dry_run or args.explain:
        _merge.say(args.config, explain=args.explain, dry_run=args.dry_run, **shared)
        return None
    if args.out is None:
        raise MergeError("OUT: wanted a folder to make")
    return _merge.merge(
        args.config,
        args.out,
        format=args.format,
        shard_bytes=_size(args.shard_size),
        seed=args.seed,
        overwrite=args.overwrite,
        **shared,
    )


def _average(args: argparse.Namespace) -> Path:
    from ._average import average, parse_weights

    return average(
        args.run_dir,
        args.out,
        last=args.last,
        weights=parse_weights(args.weights) if args.weights else None,
        parts=args.parts.split(",") if args.parts else None,
        rest=args.rest,
        format=args.format,
        workers=args.workers,
        overwrite=args.overwrite,
    )


def _pairs(flag: str, given: list[str] | None) -> dict[str, str]:
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise MergeError(f"{flag}: wanted NAME=VALUE, came {text!r:.60}")
        found[name] = value
    return found


def _size(text: str) -> int:
    """ "5B", "500M" (of bytes, mergekit's letters) -> bytes."""
    units = {"K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        size = int(float(number) * units.get(unit, 1 if not unit else 0))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise MergeError(f"--shard-size: wanted such as 5B or 500M, came {text!r:.40}")
    return size
