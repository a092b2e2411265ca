"""Turn a source's files into batches on the device: `sources` reads, `prepare` compiles once, `loading` batches.

May touch: the store and every layer below; FFCV and Numba in `loading` alone.
May not touch: losses, networks or training.
"""
