"""Programs that compose the library, run from a clone: `python -m experiments.lm`."""
