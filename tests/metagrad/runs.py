"""Training runs for the tests of replay: here, and in processes that are killed.

`python -m tests.metagrad.runs DIRECTORY KILL [COORDINATOR PROCESS]` prints the bits of
a gradient, in memory for a directory "-"; it ends itself with SIGKILL when a batch is
asked for the KILL-th time. With a coordinator it is one of two processes, of four
devices each.
"""

import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

STEPS = 30
X = np.random.default_rng(60).normal(size=(STEPS, 8, 4)).astype(np.float32)
W = np.random.default_rng(61).normal(size=(4, 8)).astype(np.float32) / 2
ONES = np.ones(8, np.float32)


def step(state, x, wrt):
    """Momentum on weighted examples; the state has a key and a counter too."""
    w, m = state["w"], state["m"]

    def loss(w):
        return jnp.mean(wrt["weights"] * jnp.sum(jnp.tanh(x @ w) ** 2, axis=-1))

    key, sub = jax.random.split(state["key"])
    noise = jax.random.normal(sub, (4, 1)) * 0.01
    m = 0.9 * m + jax.grad(loss)(w)
    w = w - wrt["rate"] * m + noise
    return {"w": w, "m": m, "key": key, "n": state["n"] + 1}, loss(w)


def objective(state, wrt):
    del wrt
    return jnp.sum(jnp.sin(state["w"]) ** 2) + 0.1 * state["n"]


def start(put=lambda x, *axes: jnp.asarray(x)):
    """(state, wrt), where `put` lays an array over mesh axes."""
    state = {
        "w": put(W, None, "model"),
        "m": put(np.zeros_like(W), None, "model"),
        "key": jax.random.key(3),
        "n": 0,
    }
    return state, {"weights": put(ONES, "data"), "rate": 0.1}


def on_mesh(kind):
    """(mesh, put) of 2 x 4 devices."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)

    def put(x, *axes):
        where = NamedSharding(mesh, P(*axes))
        return jax.make_array_from_callback(np.shape(x), where, lambda at: x[at])

    return mesh, put


def bits(result):
    """All that a run gives, as text that is equal if every bit is."""
    leaves = jax.tree.leaves((result.value, result.grad, result.grad_state["w"]))
    return " ".join(np.asarray(_whole(x)).tobytes().hex() for x in leaves)


def _whole(x):
    if x.is_fully_addressable:
        return x
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(x, tiled=True)


def main(directory, kill, coordinator=None, process=None):
    from jaxtricks.metagrad import replay

    calls, put = 0, None
    folder = None if directory == "-" else directory
    if coordinator is not None:
        jax.distributed.initialize(coordinator, 2, int(process))
        mesh, put = on_mesh(AxisType.Auto)
        jax.set_mesh(mesh)

    def batch(t):
        nonlocal calls
        calls += 1
        if calls == int(kill):
            os.kill(os.getpid(), signal.SIGKILL)
        return X[t] if put is None else put(X[t], "data")

    state, wrt = start() if put is None else start(put)
    options = {"segment": 3, "branching": 2, "in_memory": 1, "save_every": 6}
    got = replay(
        step, state, batch, objective, wrt, length=STEPS, directory=folder, **options
    )
    print("\nsaid:", got.evaluations, bits(got), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
