"""The run folder on any filesystem: atomic, verified files of generations and studies.

It may touch pyarrow and the study's types; it never computes with torch.
"""
