"""What a data folder holds: prepared datasets, and the locks of their preparations."""

import json

from gentrain.data.prepare.dataset import MANIFEST


def left_in(folder):
    """Return the names in a data folder, but for locks, which stay for the next preparation."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".preparing-"))


def without_digest(folder, **changes):
    """Make a prepared dataset's manifest one of version 0.1, with changed fields; return what was written."""
    values = json.loads((folder / MANIFEST).read_text())
    del values["digest"]
    (folder / MANIFEST).write_text(json.dumps(values | changes))
    return values | changes
