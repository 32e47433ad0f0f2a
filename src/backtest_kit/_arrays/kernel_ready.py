"""Whether the compiled kernel is loaded, for those who use it only then."""

from __future__ import annotations

import threading
from typing import Final

#: Set once the kernel's functions are compiled or loaded in this process.
kernel_ready: Final = threading.Event()
