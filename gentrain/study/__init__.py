"""What a study says and what follows from it: settings, closed forms, the lineage of generations and their keys.

It may touch models (names of networks), scores and errors; it never reads data, a store or a device.
"""
