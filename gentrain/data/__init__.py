"""From a source's files to batches on the device: sources/, prepare/, loading/.

It may touch the store; FFCV and Numba are imported in loading/ alone. It knows nothing of losses and training.
"""
