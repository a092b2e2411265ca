"""What generations minimise: one task a file, chosen by the name that a study gives or by import path.

May touch torch, a batch's logits, images and labels, and a frozen teacher.
May not touch the network in training, the optimiser, or Ray.
"""
