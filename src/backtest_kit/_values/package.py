"""The package as users see it: its version, and its classes under its own name."""

from __future__ import annotations

from collections.abc import Iterable


def installed_version() -> str | None:
    """Return the version of the package; `None` where it is run from its source."""
    from importlib import metadata

    try:
        return metadata.version("backtest-kit")
    except metadata.PackageNotFoundError:
        return None


def tell_classes_by(name: str, values: Iterable[object]) -> None:
    """Let classes be told by the name under which they are imported.

    A traceback ends with backtest_kit.FetchError then. Structs and functions keep their modules:
    msgspec looks up there what annotations name, and typing.get_overloads finds signatures by them.
    """
    for value in values:
        if isinstance(value, type) and not hasattr(value, "__struct_fields__"):
            value.__module__ = name
