"""Metagradient descent: which noisy labels to train on, and at which rates.

`python -m experiments.mgd` selects data and tunes a schedule by `metagrad.mgd`, beside
what else one would do. README.md here has the tables.
"""
