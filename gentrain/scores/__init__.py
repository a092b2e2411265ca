"""Score predictions: errors, calibration, confusion, ensembles; pure functions of arrays.

May touch: NumPy alone.
May not touch: files, settings, networks, or any other room.
"""
