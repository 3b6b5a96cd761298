"""One configuration for tests and doctests: 8 CPU devices, strict shapes, warm starts.

Set before jax starts a backend, so that every worker and every subprocess agrees.
"""

import gc
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent / ".cache" / "jax")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Small programs cost what their compilation costs. Only jax 0.10 knows the XLA flag,
# and Python 3.11 gets no other; with the newest jax the fused code is tested.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
if sys.version_info < (3, 12):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
# Nobody reads where in Python an operation of a test's program came from.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["MPLBACKEND"] = "agg"

import pytest
from jaxtyping import install_import_hook

# Every public and private signature is checked against shapes and dtypes while testing;
# not while mutating, where a mistake must be caught by the numbers, nor a second time.
if not {"JAXTRICKS_MUTATE", "JAXTRICKS_AGAIN"} & set(os.environ):
    install_import_hook("jaxtricks", "beartype.beartype")

# Functions of arrays, whose golden rows, meshes and doctests say what another jax does
# to them.
ONCE = {
    "calibration",
    "losses",
    "merging",
    "metagrad",
    "optimizers",
    "regularization",
    "schedules",
    "sharpness",
    "weighting",
}


# Programs that compose those, on the ground that `experiments.train` tests twice.
PROGRAMS = {
    "test_learned_optimizers",
    "test_lm_config",
    "test_longtail",
    "test_magic",
    "test_maml",
    "test_merge_domains",
    "test_metagrad_recipes",
    "test_mgd",
    "test_models",
    "test_pmap",
    "test_rebasin",
    "test_sharpness",
    "test_tricks",
}


# Kernels in plain XLA, likewise.
PLAIN = {
    "test_hedgehog",
    "test_linear_attention",
    "test_linear_cross_entropy",
    "test_long_short_attention",
    "test_statistics",
}


def pytest_collection_finish():
    """What was imported stays: to search it for garbage takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 10)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """These families by themselves, their doctests, these programs and notebooks run
    once.
    """
    for item in items:
        folder, module = item.path.parent, item.path.stem
        family = folder.name in ONCE and folder.parent.name in ("tests", "jaxtricks")
        program = folder.name == "experiments" and module in PROGRAMS
        plain = folder.name == "kernels" and module in PLAIN
        if family or program or plain or folder.name == "notebooks":
            item.add_marker(pytest.mark.slow)
