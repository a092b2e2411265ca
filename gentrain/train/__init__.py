"""Train one generation on one group of workers: losses, tasks, the loop, exact resume.

May touch: torch, data, store and models.
May not touch: Ray, chains, or who started it.
"""
