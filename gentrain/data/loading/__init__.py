"""Batches of a prepared dataset: order, augmentation, and the only place that imports FFCV and Numba."""
