"""Read what is finished: a chain's rows, a study's state, what a network gets wrong.

It may touch the store and train's inference; it never trains and never writes.
"""
