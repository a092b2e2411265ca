"""Read and write the run folder on any filesystem: atomic, verified files of generations and studies.

May touch: PyArrow, obstore, file locks, and the study's types, whose records it keeps.
May not touch: torch, data sets or anything that computes.
"""
