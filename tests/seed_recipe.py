"""Weights and inputs made from names and shapes alone, so that references need no weight files.

NumPy's legacy ``RandomState`` draws them, because its stream is the same in all versions.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

POSITIVE = ("running_var", "weight_g", "parametrizations.weight.original0")
UNSCALED = ("pos_embed", "pos_embedding", "cls_token")


def seeded_normal(text: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Standard normal numbers of ``shape``, from the first four bytes of the hash of ``text``."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.asarray(np.random.RandomState(seed).standard_normal(tuple(shape)))


def seeded_array(name: str, shape: Sequence[int]) -> NDArray[np.generic]:
    """The tensor ``name``: float32, or a zero count."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(tuple(shape), dtype=np.int64)
    normal = seeded_normal(name, shape)
    if name.endswith(POSITIVE):
        value = 1.0 + 0.1 * np.abs(normal)
    elif len(shape) >= 2 and not name.endswith(UNSCALED):
        value = normal / np.sqrt(max(int(np.prod(shape[1:])), 1))
    elif len(shape) == 1 and name.endswith("weight"):
        value = 1.0 + 0.1 * normal
    else:
        value = 0.1 * normal
    return np.asarray(value, dtype=np.float32)


def seeded_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.generic]]:
    """All tensors of a table of names and shapes."""
    return {name: seeded_array(name, shape) for name, shape in shapes.items()}


def seeded_input(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The input of the reference ``name``: unit variance, float32."""
    return seeded_normal(f"input:{name}", shape).astype(np.float32)
