"""Networks trained apart, and the line between two before and after alignment.

`python -m experiments.rebasin` trains pairs of perceptrons and of convnets on digits,
permutes one of each pair to match the other, and measures the barrier between them and
what their merges are worth. README.md here has the tables.
"""
