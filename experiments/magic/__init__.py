"""Data attribution by differentiating training, beside what retraining gives.

`python -m experiments.magic` predicts what leaving out examples does to the loss on
single images, and leaves them out. README.md here has the table.
"""
