"""Every point of a grid, with several seeds, and one table with confidence intervals.

`python -m experiments.sweep experiments/train.py --grid lr=1e-3,3e-4 --seeds 5 -- \\
--steps 200` trains ten times, one run after the other. Killed, it goes on when started
again: finished runs are read from their results, and the one that was cut off continues
by itself. A file that defines `run(config, seed) -> dict of scalars` is called instead,
for all seeds at once under `jax.vmap` where that is possible.
"""
