"""What a user gets: a lazy import, a wheel with the library alone, two commands."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

import jaxtricks

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# In a fresh process: every family and every public name of it is used once.
TOUCH_ALL = """
import importlib, jaxtricks
for family in jaxtricks.__all__:
    module = getattr(jaxtricks, family)
    for name in module.__all__:
        getattr(module, name)
"""


def python(code, *options, cwd=ROOT, **environment):
    """Standard output of a fresh interpreter, without what conftest sets for jax."""
    clean = {name: x for name, x in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=clean | environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_import_loads_nothing():
    loaded = python("import jaxtricks, sys; print(*sys.modules)").split()
    assert not {"jax", "jaxlib", "flax", "optax", "numpy", "jaxtyping"} & set(loaded)


def test_the_merging_family_loads_without_jax():
    loaded = python("import jaxtricks.merging, sys; print(*sys.modules)").split()
    assert "jaxtricks.merging" in loaded
    assert not {"jax", "jaxlib"} & set(loaded)


def test_touching_everything_starts_no_backend():
    # The number of CPU devices can only be set while no backend runs.
    counting = "import jax; jax.config.update('jax_num_cpu_devices', 3)"
    code = f"{TOUCH_ALL}\n{counting}\nprint(jax.device_count())"
    assert python(code, JAX_PLATFORMS="cpu") == "3\n"


def test_it_works_without_the_extras():
    required = {"jax", "jaxtyping", "numpy", "optax"}
    declared = {re.match(r"[\w-]+", x)[0] for x in PYPROJECT["project"]["dependencies"]}
    assert declared == required
    code = f"""
import sys
for extra in ("flax", "orbax", "grain", "tyro", "rich", "matplotlib", "safetensors",
              "beartype", "chex", "equinox", "hypothesis"):
    sys.modules[extra] = None  # an import of it raises ModuleNotFoundError
{TOUCH_ALL}
import numpy as np
print(jaxtricks.reduce.mean(jaxtricks.losses.focal(np.zeros((2, 3)), np.array([0, 1]))))
"""
    assert python(code, JAX_PLATFORMS="cpu").startswith("0.48")


def test_dir_and_a_wrong_name():
    assert dir(jaxtricks) == sorted([*jaxtricks.__all__, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'loses'"):
        _ = jaxtricks.loses


def test_the_version_stands_in_one_place():
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert importlib.metadata.version("jaxtricks") == jaxtricks.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.M)
    assert released is None or released[1] == jaxtricks.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built as an installer builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    code = (
        f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    )
    return folder / python(code).splitlines()[-1]


def test_the_wheel_holds_the_library_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = f"jaxtricks-{jaxtricks.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"jaxtricks", info}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "jaxtricks").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    }
    assert "jaxtricks/py.typed" in sources
    assert {name for name in names if name.startswith("jaxtricks/")} == sources
    assert f"{info}/licenses/LICENSE" in names


def test_the_wheel_works(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    [metadata] = importlib.metadata.distributions(path=[str(tmp_path)])
    [script] = metadata.entry_points
    assert (script.name, script.value) == ("jaxtricks", "jaxtricks._cli:main")
    assert metadata.metadata["Requires-Python"] == ">=3.11"
    code = "import jaxtricks._cli as c; print(c.__file__); c.main(['papers'])"
    file, *papers = python(code, cwd=tmp_path).splitlines()
    assert pathlib.Path(file) == tmp_path / "jaxtricks" / "_cli.py"
    here = python("import jaxtricks._cli as c; c.main(['papers'])").splitlines()
    assert papers == here


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("echo 3.8.18", "`{}` is 3.8.18.\nTry: make test PYTHON="),
        ("echo 2.7.18", "`{}` is 2.7.18.\nTry: make test PYTHON="),
        (
            "echo pyenv: no such command >&2; exit 127",
            "`{}` is missing or does not run.",
        ),
        (
            'case "$2" in *ensurepip*) exit 1 ;; esac; echo 3.12.1',
            "apt install python3",
        ),
    ],
)
def test_make_says_what_is_missing(python, said, tmp_path):
    interpreter = tmp_path / "a python"
    interpreter.write_text(f"#!/bin/sh\n{python}\n")
    interpreter.chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / ".ci" / "venv", tmp_path / "environment", "dev"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": str(interpreter)},
    )
    assert done.returncode == 1
    assert said.format(interpreter) in done.stderr
    assert not (tmp_path / "environment").exists()
