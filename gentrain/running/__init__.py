"""Do what is missing: a chain over a runner, the plan, the lease table, the runner in this process.

May touch: results, train and every layer below.
May not touch: Ray, or anything that a person sees.
"""
