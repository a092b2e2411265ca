"""Compile a source once into `.beton` files and a manifest; verify, rebuild, publish and fetch them.

May touch: `sources`, the writers in `loading`, and the store.
May not touch: FFCV itself, torch or a device.
"""
