"""Optimizers learnt by persistent evolution strategies, on networks they never saw.

`python -m experiments.learned_optimizers` learns them on small tasks and compares them
with SGD and Adam. README.md here has the table.

Source: Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
arXiv:2211.09760; Thérien et al., "μLO: Compute-Efficient Meta-Generalization of Learned
Optimizers", 2024, arXiv:2406.00153. Differs: one kind of task at one width, minutes of
learning for months.
"""
