"""Learning to adapt, as MAML's paper shows it: sinusoids, and digits never seen.

`python -m experiments.maml` trains initialisations and shows how fast they adapt to new
tasks, beside joint pretraining. README.md here has the tables.
"""
