"""Stored predictions: all class probabilities of every held-out image, so that ensembles cost nothing later."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gentrain.store.folder import encode_table


def encode_predictions(probabilities: np.ndarray, labels: np.ndarray) -> bytes:
    """Return probabilities (N, C) and labels (N,) as the bytes of a Parquet file, a row a sample.

    Hardly a probability occurs twice: without a dictionary of them the file is a third smaller.
    """
    flat = pa.array(np.ascontiguousarray(probabilities, dtype=np.float32).reshape(-1))
    table = pa.table(
        {
            "index": pa.array(np.arange(len(labels), dtype=np.int64)),
            "label": pa.array(labels.astype(np.int64)),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1]),
        }
    )
    return encode_table(table, dictionaries=["index", "label"])


def decode_predictions(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return (probabilities (N, C) float32, labels (N,)) of `encode_predictions` bytes."""
    table = pq.read_table(io.BytesIO(content))
    column = table["probabilities"].combine_chunks()
    probabilities = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    return probabilities, table["label"].to_numpy()
