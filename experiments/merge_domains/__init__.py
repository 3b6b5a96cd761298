"""One small language model, fine-tuned on three domains and merged by every method.

`python -m experiments.merge_domains` pretrains, fine-tunes and merges, for some seeds,
and shows bits per byte of each domain. README.md here has the table.
"""
