"""Trees of real photographs of mixed sizes: pieces of the three that ship with scikit-learn and Matplotlib."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(90, 60), (64, 64), (41, 120), (150, 37), (33, 33), (200, 180), (48, 75), (301, 47)]


def photographs():
    import sklearn.datasets
    from matplotlib import cbook

    folder = Path(sklearn.datasets.__file__).parent / "images"
    for name in ("china", "flower"):
        with Image.open(folder / f"{name}.jpg") as opened:
            yield name, opened.copy()
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as opened:
        yield "hopper", opened.copy()


def halves():
    """Six classes: the upper and the lower half of each photograph."""
    for name, whole in photographs():
        middle = whole.height // 2
        yield f"{name}-above", whole.crop((0, 0, whole.width, middle))
        yield f"{name}-below", whole.crop((0, middle, whole.width, whole.height))


def write_tree(root, classes, *, train=8, val=4, sizes=SIZES):
    """Write `root`/train/<class>/* and `root`/val/<class>/*: pieces of many shapes of each class's photograph."""
    draw = np.random.default_rng(0)
    for name, photograph in classes:
        for split, count in (("train", train), ("val", val)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                width, height = sizes[i % len(sizes)]
                left = int(draw.integers(0, photograph.width - width))
                top = int(draw.integers(0, photograph.height - height))
                photograph.crop((left, top, left + width, top + height)).save(folder / f"{i}.jpg", quality=92)
    return root
