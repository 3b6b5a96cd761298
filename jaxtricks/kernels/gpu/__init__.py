"""Kernels for Hopper GPUs in Pallas Mosaic GPU; imported where they are lowered."""
