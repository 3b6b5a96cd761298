"""Real processes for the tests: started together, each with a time limit."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(devices=4, **more):
    """Of a child: so many devices, and no cluster but a given one."""
    clusters = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "MEGASCALE_")
    ours = {k: v for k, v in os.environ.items() if not k.startswith(clusters)}
    return ours | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        **more,
    }


def start(*words, cwd=ROOT, env=None, **more):
    """One process of this Python, with its output in pipes."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=env or environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(count, *words, **where):
    """So many processes of one run, joined by --coordinator."""
    address = f"--coordinator=127.0.0.1:{free_port()}"
    return [
        start(*words, address, f"--processes={count}", f"--process={i}", **where)
        for i in range(count)
    ]


def ends(processes, timeout=400):
    """[(status, output, errors)] of them all; killed when they take too long."""
    until, found = time.monotonic() + timeout, []
    try:
        for process in processes:
            out, err = process.communicate(timeout=max(1, until - time.monotonic()))
            found.append((process.returncode, out, err))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


def said(out):
    """The lines that a child marked; Gloo's own are torn and between them."""
    return [line.partition("said: ")[2] for line in out.split("\n") if "said: " in line]
