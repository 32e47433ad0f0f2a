"""What counts as a whole number."""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex, TypeGuard

import numpy as np


def is_whole(value: object, lowest: int = 1) -> bool:
    """Say whether a value is a whole number, `lowest` or more; `True` and 3.0 are none."""
    if isinstance(value, bool | np.bool_ | np.ndarray) or not isinstance(value, SupportsIndex):
        return False
    return operator.index(value) >= lowest


def is_number(value: object) -> TypeGuard[float]:
    """Say whether a value is a finite number; `True` is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


def is_amount(value: object) -> TypeGuard[float]:
    """Say whether a value is a finite number above 0."""
    return is_number(value) and value > 0
