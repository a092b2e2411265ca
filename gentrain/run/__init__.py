"""Do what is missing: a chain over a runner, the plan, the lease table, the local runner.

It may touch results and train; it knows nothing of Ray.
"""
