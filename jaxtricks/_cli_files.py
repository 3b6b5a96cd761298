"""`jaxtricks merge` and `jaxtricks average`: their flags and help.

What they do is imported when one runs: it needs numpy and PyYAML, and tensorstore for
orbax, but never jax.
"""

import argparse
from collections.abc import Callable

_MERGE = """\
  jaxtricks merge ties.yml out              writes the folder out, whole or not at all
  jaxtricks merge ties.yml --explain        where it is not what others do
  jaxtricks merge ties.yml out --model base=/checkpoints/llama

ties.yml, a recipe of mergekit's:
  merge_method: ties
  base_model: base
  models:
    - model: math              # a folder, a file, or in the Hugging Face cache
      parameters: {weight: 0.6, density: 0.5}
    - model: code
      parameters:
        weight: [0.2, 0.6]     # a gradient from the first layer to the last
        density:
          - {filter: mlp, value: 0.7}   # tensors with this in their names
          - value: 0.4                  # all others
  dtype: bfloat16              # of OUT; computed in f32 at least

methods:
  arcee_fusion, breadcrumbs, breadcrumbs_ties, dare_linear, dare_ties, della,
  della_linear, karcher, linear, model_stock, multislerp, nearswap, nuslerp,
  passthrough, ram, ramplus_tl, sce, slerp, task_arithmetic, ties

Recipes may also have slices, modules, parameters of all models, out_dtype,
tokenizer_source and chat_template, as mergekit's; a key that is unknown is an error.

Reads safetensors (a file, or shards with an index), flax msgpack and orbax, never
pickles. Streams tensor by tensor: --dry-run says the memory. OUT holds merge.json with
the recipe, versions and the SHA-256 of the inputs. Status 2 and one line if it fails.
"""


def add(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands, made by `command(commands, name, what, description, more)`."""
    merge = command(
        commands,
        "merge",
        "checkpoints merged by a recipe of mergekit's",
        "Merges checkpoints of any size by a recipe of mergekit's.",
        _MERGE,
    )
    merge.add_argument("config", metavar="CONFIG.yml", help="the recipe")
    merge.add_argument("out", nargs="?", metavar="OUT", help="the folder to make")
    merge.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done to which tensors, and the memory it takes",
    )
    merge.add_argument(
        "--explain",
        action="store_true",
        help="print where it differs from the papers and mergekit",
    )
    merge.add_argument(
        "--model",
        action="append",
        metavar="NAME=PATH",
        help="where a model of the recipe lies; may be repeated",
    )
    merge.add_argument(
        "--tied",
        action="append",
        metavar="NAME=NAME",
        help="the tensor that stands in where a model lacks the first",
    )
    merge.add_argument(
        "--shard-size", default="5B", metavar="SIZE", help="5B (default), 500M, ..."
    )
    merge.add_argument("--seed", type=int, default=0, help="of random methods")
    merge.set_defaults(run=lambda args: _files().merge(args))
    average = command(
        commands,
        "average",
        "the mean of a run's last checkpoints",
        "Averages the last checkpoints of a run, as LAWA does.",
    )
    average.add_argument("run_dir", metavar="RUN_DIR", help="of orbax checkpoints")
    average.add_argument(
        "out", nargs="?", metavar="OUT", help="default RUN_DIR/average"
    )
    average.add_argument("--last", type=int, default=5, metavar="N", help="how many")
    average.add_argument("--weights", metavar="W,W,...", help="oldest first")
    average.add_argument(
        "--parts", metavar="NAME,...", help="what is averaged (params, batch_stats)"
    )
    average.add_argument(
        "--rest", choices=("newest", "drop"), default="newest", help="what is not"
    )
    average.set_defaults(run=lambda args: _files().average(args))
    for parser, form in ((merge, "safetensors"), (average, "orbax")):
        parser.add_argument(
            "--format", choices=("safetensors", "orbax"), default=form, help="of OUT"
        )
        parser.add_argument(
            "--workers",
            type=int,
            metavar="N",
            help="tensors at once (cores, at most 4)",
        )
        parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def _files():
    """The commands on files, and numpy with them, only when one runs."""
    from .merging.files import _command

    return _command
