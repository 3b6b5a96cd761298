"""Short programs that compose `jaxtricks.metagrad`, one for each idea of a paper.

`python -m experiments.metagrad_recipes` lists them, and with a name runs one. Each is a
few functions and `run(quick)`, which returns the numbers that show the idea.
"""
