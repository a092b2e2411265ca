"""The only place that imports Ray: sessions, workers, trainers and what they tell the driver."""
