"""Merges in children that die, or meet a full disk, at each call that changes the disk.

`python -m tests.merging.files.faults kill|full [--overwrite]` in a folder with the
recipe c.yml prints at how many calls; what is left there is compared file by file.
"""

import errno
import json
import os
import pathlib
import shutil
import signal
import sys

from jaxtricks.merging import files

HERE = pathlib.Path()
OUT = HERE / "out"


def main(how: str, overwrite: bool) -> None:
    signal.alarm(300)
    whole, old = picture(merged("whole")), picture(merged("old", "old.yml"))
    at, left = 0, set()
    while True:
        at += 1
        reset(overwrite)
        status = child(lambda at=at: disturbed(at, how, overwrite))
        found = picture(OUT)
        kinds = {"absent": None, "new": whole, "old": old if overwrite else 0}
        (kind,) = [name for name, files in kinds.items() if files == found]
        left.add(kind)
        if status == 0:  # it came to the end before the call that was meant
            assert kind == "new", kind
            break
        half, aside = HERE / ".out.partial", HERE / ".out.old"
        if how == "full":
            assert kind == ("old" if overwrite else "absent"), (at, kind)
            assert not half.exists(), at
            assert not aside.exists(), at
        elif kind != "new":
            assert child(lambda: merged("out", overwrite=overwrite)) == 0, at
            assert picture(OUT) == whole, at
            assert not half.exists(), at
            assert not aside.exists(), at
    print(json.dumps([at - 1, sorted(left)]))


def merged(out, config="c.yml", **options):
    return files.merge(config, HERE / out, workers=2, shard_bytes=330, **options)


def picture(folder):
    """name -> bytes of all that is in it; None where there is nothing."""
    if not folder.exists():
        return None
    return {x.name: x.read_bytes() for x in sorted(folder.iterdir())}


def reset(overwrite):
    for path in (OUT, HERE / ".out.partial", HERE / ".out.old"):
        shutil.rmtree(path, ignore_errors=True)
    if overwrite:
        shutil.copytree(HERE / "old", OUT)


def child(work) -> int:
    """The exit status of a fork that does it."""
    if not (pid := os.fork()):
        status = 1
        try:
            work()
            status = 0
        except files.MergeError as error:
            told = "no space" in str(error) and "\n" not in str(error)
            status = 3 if told else 4
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 3, -signal.SIGKILL), status
    return status


def disturbed(at, how, overwrite):
    arm(at, how)
    merged("out", overwrite=overwrite)


def arm(at, how):
    """Wraps what changes the disk: dies, or finds it full, at the at-th call of it."""
    seen = [0]

    def point(full=True):
        if how == "full" and not full:
            return
        seen[0] += 1
        if seen[0] == at and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if seen[0] == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wrap(name, full):
        call = getattr(os, name)

        def wrapped(*args, **kwargs):
            point(full)
            return call(*args, **kwargs)

        setattr(os, name, wrapped)

    os.fsync = lambda fd: None  # or most of the time would go there
    for name in ("mkdir", "fsync"):
        wrap(name, full=True)
    for name in ("rename", "rmdir", "unlink"):
        wrap(name, full=False)
    pwrite = os.pwrite

    def half_of_it(fd, data, start):
        point()
        return pwrite(fd, data[: max(1, len(data) // 2)], start)

    def in_two(path, data):
        point()
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            point()
            file.write(data[len(data) // 2 :])

    os.pwrite = half_of_it
    pathlib.Path.write_bytes = in_two
    pathlib.Path.write_text = lambda path, text, encoding: in_two(path, text.encode())


if __name__ == "__main__":
    main(sys.argv[1], "--overwrite" in sys.argv)
