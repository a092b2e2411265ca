"""Read the images and labels that a source's files hold; filter, limit and split them.

May touch: source files (nothing is written but downloads), Pillow, PyArrow, torchvision's and scikit-learn's datasets.
May not touch: the store, prepared datasets or a device.
"""
