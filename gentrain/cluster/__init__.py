"""The only place that imports Ray: sessions, workers, trainers and what they tell the driver.

Ray reads its environment when it is imported, so what gentrain asks of it is set here, before that.
"""

import os

from gentrain.train.allocator import HUGE_PAGES

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # without it Ray's API has no Train runs (/api/train/v2/runs)
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # paces every report; the default of 2 s makes short epochs wait
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # a machine may have to be bought and booted; the default is 60
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 all else goes first; a step waits for its slowest thread
    HUGE_PAGES: "1",  # torch reads it before a worker gets to run anything of ours
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
