"""Parse a study and derive from it: settings, closed forms of D(f_a1, λ), the lineage of generations and their keys.

May touch: pydantic, YAML, and models (names of networks), scores and errors.
May not touch: data, a run folder or a device.
"""
