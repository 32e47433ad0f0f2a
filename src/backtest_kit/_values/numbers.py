"""What counts as a whole number."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np


def is_whole(value: object, lowest: int = 1) -> bool:
    """Say whether a value is a whole number, `lowest` or more; `True` and 3.0 are none."""
    if isinstance(value, bool | np.bool_ | np.ndarray) or not isinstance(value, SupportsIndex):
        return False
    return operator.index(value) >= lowest
