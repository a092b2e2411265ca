"""Train one generation on one worker group: losses, tasks, the loop, exact resume.

It may touch data, store and models; it knows nothing of Ray, of chains or of who started it.
"""
