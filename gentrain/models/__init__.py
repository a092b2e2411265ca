"""The networks, by name: built, counted, folded and fused.

It may touch torch and torchvision; it knows nothing of studies, data or training.
"""
