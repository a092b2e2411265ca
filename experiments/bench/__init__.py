"""Measure what gentrain costs: steps, generations, sweeps, against plain scripts and against its own arithmetic.

It may touch every room of gentrain, its private parts too: what is measured is the engine itself. Nothing imports it.
"""
