"""Pallas kernels for TPUs (Mosaic); imported only where one of them is lowered."""
