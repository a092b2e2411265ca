# Sourced by the shells of a cluster's nodes, so that Ray and everything that it starts there inherits it.
export PATH="$HOME/gentrain/.venv/bin:$PATH"
export RAY_AUTH_MODE=token
# The same as gentrain/cluster/_compat.py sets for its own process, for the processes that Ray starts.
export RAY_USAGE_STATS_ENABLED=0
export RAY_TRAIN_ENABLE_STATE_TRACKING=1
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.5
export RAY_AIR_NEW_OUTPUT=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export RAY_worker_niceness=0
export THP_MEM_ALLOC_ENABLE=1
# A worker group may wait until a machine is bought, booted and set up; the default is one minute.
export RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=1800
# A freshly booted machine reads Ray from a cold disk; the default is 30 s.
export RAY_raylet_start_wait_time_s=180
# With NVIDIA's MPS (see worker_start_ray_commands): the daemon and the trainings must use the same folders.
# export CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps CUDA_MPS_LOG_DIRECTORY=/tmp/nvidia-mps-log
