"""Read a prepared dataset batch by batch, in the order of a seed, and augment the batches.

May touch: FFCV and Numba (private names of theirs in `_compat` alone), torch, and the study's settings of images.
May not touch: sources, the preparation of datasets, or the store.
"""
