"""Pretrain a small byte-level transformer with one trick at a time, then with all.

`python -m experiments.lm` trains on the running Python's own standard library and
prints one table; `--help` explains every flag. See experiments/README.md.
"""
