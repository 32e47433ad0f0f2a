"""What a command's exit code says."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
MISUSE: Final = 2
INTERRUPTED: Final = 130
