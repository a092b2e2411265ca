"""Score predictions: errors, calibration, confusion, ensembles, spread over seeds; pure functions of numbers.

May touch: NumPy, and SciPy for the spread.
May not touch: files, settings, networks, or any other room.
"""
