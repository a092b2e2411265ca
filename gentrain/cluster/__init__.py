"""Run chains on Ray: sessions, workers, trials, leases, events.

It may touch every room below the API, and is the only room that imports Ray.
It may not draw, report, or decide what is to be trained: that is in `run`.
"""

import os

from gentrain.cluster._compat import ENVIRONMENT

for _name, _value in ENVIRONMENT.items():  # Ray reads them as it is imported
    os.environ.setdefault(_name, _value)
