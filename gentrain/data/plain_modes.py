"""Imports FFCV without what makes that slow: import this first.

FFCV keeps its two image modes in a typed dictionary, for which Numba compiles 3 s in every process. It is only ever
read by Python, so an ordinary one does as well.
"""

import numba.typed

_typed, numba.typed.Dict = numba.typed.Dict, dict
try:
    import ffcv.fields.rgb_image  # noqa: F401
finally:
    numba.typed.Dict = _typed
