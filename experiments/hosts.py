"""Several processes as one run, on jax's own runtime: they find each other, agree, and
none survives the death of another.

jax detects SLURM, Open MPI, TPU pods and Kubernetes itself; here it is only decided
whether to ask it, from the variables that these set, because a laptop must not wait for
a metadata server. A peer's death is seen in two ways. A collective over sockets often
fails at once, which ends this process with one line and status 75. Where it hangs,
jax's coordination service, to which every process sends heartbeats, aborts this one
after --peer-timeout seconds, with lines of its own ("another task died", status 134).
"""

import contextlib
import functools
import glob
import importlib.util
import json
import os
import socket
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .config import BadInput, Failed, Hosts

PEER_DIED = 75  # exit status, EX_TEMPFAIL: start all processes again
TOGETHER = (0, 130)  # exit statuses that all processes agreed on
PATIENCE = 3  # seconds that a process with another one waits for its peers

# What jax, XLA, Gloo, NCCL and orbax say when a process is gone.
DEATHS = (
    "gloo",
    "nccl",
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "socket closed",
    "coordination",
    "heartbeat",
    "barrier",
    "unavailable:",
    "aborted:",
    "cancelled:",
    "deadline_exceeded",
)


def start(config: Hosts) -> None:
    """Joins the other processes, if there are any; before any array exists."""
    if not wanted(config, os.environ):
        return
    # Its SIGTERM handler would replace ours, which knows the grace and Ctrl-C too.
    jax.config.update("jax_enable_preemption_service", False)
    given = {}
    if config.coordinator is not None:
        if config.process == 0:
            _bind(config.coordinator)
        else:
            _reach(config.coordinator, config.start_timeout)
        given = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
            "cluster_detection_method": "deactivate",
        }
    elif _is_open_mpi_5(os.environ):
        given = {"cluster_detection_method": "mpi4py"}
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=config.start_timeout,
            heartbeat_timeout_seconds=config.peer_timeout,
        )
    except (RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
        if not given and not scheduled(os.environ) and _alone(error):
            return
        at = config.coordinator or "what the environment says (see launch/README.md)"
        line = f"--coordinator: cannot start with {at}: {first_line(error)}"
        raise BadInput(line) from None


def _bind(coordinator: str) -> None:
    """Whether process 0 can listen there: jax would crash where it cannot."""
    port = int(coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        said = f"cannot start with {coordinator}: {os.strerror(error.errno)}"
        raise BadInput(f"--coordinator: {said}") from None


def _reach(coordinator: str, seconds: float) -> None:
    """Waits for process 0 to listen: jax would abort where it does not."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                said = f"no process 0 at {coordinator} within {seconds} s ({error})"
                raise BadInput(f"--coordinator: {said}") from None
        time.sleep(0.2)


def wanted(config: Hosts, env: Mapping[str, str]) -> bool:
    """Whether there are other processes, by the flags or by what launchers set."""
    if config.coordinator == "none":
        return False
    return config.coordinator is not None or scheduled(env) or _on_tpu(env)


def scheduled(env: Mapping[str, str]) -> bool:
    """Whether a scheduler started this process as one of several."""
    return (
        (_number(env, "SLURM_NTASKS") > 1 and "SLURM_STEP_NODELIST" in env)
        or _number(env, "OMPI_COMM_WORLD_SIZE") > 1
        or ("KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env)
    )


def _is_open_mpi_5(env: Mapping[str, str]) -> bool:
    """It no longer says where its launcher is, so jax asks mpi4py."""
    old = "OMPI_MCA_orte_hnp_uri" in env
    return _number(env, "OMPI_COMM_WORLD_SIZE") > 1 and not old


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env.get(name, "1"))
    except ValueError:
        raise BadInput(f"{name}: wanted a number, came {env[name]!r}") from None


def _on_tpu(env: Mapping[str, str]) -> bool:
    """One TPU host of several; jax asks the metadata server where no variable says."""
    if "tpu" not in env.get("JAX_PLATFORMS", "tpu"):
        return False
    if _number(env, "MEGASCALE_NUM_SLICES") > 1:
        return True
    named = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
    if named is not None or "TPU_SKIP_MDS_QUERY" in env:
        return "," in (named or "")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _alone(error: Exception) -> bool:
    """jax found no cluster, or no metadata server answers: a lone TPU host."""
    return "coordinator_address should be defined" in str(error) or (
        type(error).__module__.startswith(("requests", "urllib3"))
    )


def index() -> int:
    """Of this process."""
    return jax.process_index()


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def first() -> bool:
    """Whether this is the process that prints and writes."""
    return index() == 0


def agree(value: int) -> int:
    """The largest of the processes' values, on all of them; every one must call."""
    return value if count() == 1 else int(_largest(value))


def ballot() -> Callable[[int], int]:
    """`agree` that lets nobody wait: a call gives the agreement on the values of the
    call before, at first 0. With one process it costs nothing, and is at once.

    On CPUs it does wait, for there two programs at a time that talk to other processes
    may wait for each other for ever; other devices run them in order.
    """
    last = np.int32(0)

    def vote(value: int) -> int:
        nonlocal last
        if count() == 1:
            return value
        before, last = last, _largest(value)
        if jax.default_backend() == "cpu":
            last.block_until_ready()
        return int(before)

    return vote


def _largest(value: int) -> jax.Array:
    sharding, largest = _reduction()
    mine = np.full(jax.local_device_count(), value, np.int32)
    return largest(jax.make_array_from_process_local_data(sharding, mine))


@functools.cache
def _reduction():
    kinds = (AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=kinds)
    split, whole = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (["all"], []))
    return split, jax.jit(jnp.max, out_shardings=whole)


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def unanimous() -> Iterator[None]:
    """What one process refuses inside, all refuse; at the end all wait for each other.
    (One that left alone would be taken for dead, and let the others abort.)
    """
    refused = None
    try:
        yield
    except BadInput as error:
        refused = error
    if agree(refused is not None):
        raise refused or BadInput("another process refuses, and says why")


def alike(values: dict) -> None:
    """BadInput on all processes, unless each holds the same values of the same keys:
    with other flags or data they would hang, or train on each other's rubbish."""
    if count() == 1:
        return
    from jax.experimental import multihost_utils

    said = [json.dumps(value, sort_keys=True).encode() for value in values.values()]
    mine = np.array([zlib.crc32(text) for text in said], np.uint32)
    every = multihost_utils.process_allgather(mine)
    others = (every != every[0]).any(axis=0)
    differ = [key for key, other in zip(values, others, strict=True) if other]
    if differ:
        raise BadInput(f"--process: the processes differ in {', '.join(differ)}")


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """Ends this process with one line and status 75 when what is raised inside comes of
    a dead peer. (One that hangs instead is ended by the coordination service.)
    """
    try:
        yield
    except (BadInput, Failed):
        raise
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if of_peer(error):
            said = f"process {index()} of {count()}: another process is gone"
            print(f"{said} ({first_line(error)}); start all again", file=sys.stderr)
            _end(PEER_DIED)
        # Python's own way out would wait for threads that wait for the peers.
        traceback.print_exc()
        leave(1)


def of_peer(error: BaseException | None) -> bool:
    """Whether the error, or its cause, is what a dead peer leads to."""
    if error is None or not jax.distributed.is_initialized():
        return False
    said = str(error).lower()
    kinds = (jax.errors.JaxRuntimeError, TimeoutError, ValueError)
    if isinstance(error, kinds) and any(death in said for death in DEATHS):
        return True
    return of_peer(error.__cause__)


def leave(status: int) -> NoReturn:
    """Ends this process together with its peers; with an error, soon without them, for
    one that stayed would let them hang in a collective.
    """
    if not jax.distributed.is_initialized():
        sys.exit(status)
    if status not in TOGETHER:
        late = threading.Timer(PATIENCE, _end, [status])
        late.daemon = True
        late.start()
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()
    _end(status)


def _end(status: int) -> NoReturn:
    """At once: jax's own way out would wait for the dead."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def first_line(error: BaseException) -> str:
    said = f"{type(error).__name__}: {error}"
    return said.split("\n")[0][:200]
