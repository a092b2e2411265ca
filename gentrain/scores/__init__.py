"""What predictions are worth: errors, calibration, confusion, ensembles. Pure functions of arrays.

It may touch NumPy alone.
"""
