"""Give the events of a run to experiment trackers: TensorBoard, MLflow, Weights & Biases, Trackio.

It may read the run folder and writes only beside the study's log; only here are the trackers' libraries imported.
It may not change a training, hold it up or end it: a tracker that fails or hangs costs one line.
"""
