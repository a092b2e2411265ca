"""Read what is finished: a chain's rows, a study's status, what a network gets wrong.

May touch: the store, and train's inference.
May not touch: runners; it never trains a generation.
"""
