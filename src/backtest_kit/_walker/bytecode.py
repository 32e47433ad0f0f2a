"""What compiled code names: globals, and what it imports."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield code and all code within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def names_of_globals(code: CodeType) -> Iterator[str]:
    """Yield the globals that code names."""
    for each in nested(code):
        for step in dis.get_instructions(each):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield step.argval


def imports(code: CodeType) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield level, module and names of each import in code."""
    for each in nested(code):
        steps = [*dis.get_instructions(each)]
        for i, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":  # after the level and the names, both constants
                yield steps[i - 2].argval or 0, step.argval, tuple(steps[i - 1].argval or ())
