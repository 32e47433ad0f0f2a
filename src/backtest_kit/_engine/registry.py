"""A dict that says what exists when a name is unknown or taken."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from backtest_kit._values.errors import RegistrationError, UnknownNameError, did_you_mean
from backtest_kit._values.places import Place, caller
from backtest_kit._values.schemas import Schema


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)
S = TypeVar("S", bound=Schema)


class Registry(Generic[T]):
    """Records of one kind by name, in the order in which they were added."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._records: dict[str, T] = {}
        self._places: dict[str, Place | None] = {}

    def add(self, record: T, *, replace: bool = False) -> None:
        """Add a record that is already checked; `replace`: in the place of what has its name.

        Raises:
            RegistrationError: the name is taken.
        """
        if record.name in self._records and not replace:
            known = ", ".join(sorted(self._records))
            place = self._places.get(record.name)
            where = "" if place is None else f", from {place.file}:{place.line}"
            raise RegistrationError(
                f"{self._kind} {record.name!r} already exists{where}; choose another name, or give "
                f"replace=True (there are: {known})"
            )
        self._records[record.name] = record
        self._places[record.name] = caller()

    def get(self, name: str) -> T:
        """Return the record of this name.

        Raises:
            UnknownNameError: there is none; the message names those that exist.
        """
        try:
            return self._records[name]
        except (KeyError, TypeError):
            raise UnknownNameError(
                f"unknown {self._kind} {name!r}{did_you_mean(str(name), self._records)}"
            ) from None

    def copy(self) -> Registry[T]:
        """Return the records as they are now: what is replaced later stays as it was."""
        copied: Registry[T] = Registry(self._kind)
        copied._records = {**self._records}
        return copied

    def list(self) -> list[T]:
        """Return all records in the order in which they were added."""
        return [*self._records.values()]


def made(schema: type[S], given: object, fields: dict[str, Any]) -> S:
    """Return the record that was given, or one of these fields.

    Raises:
        RegistrationError: both are given, a field is unknown, missing or malformed.
    """
    if given is not None:
        if fields:
            raise RegistrationError(f"give a {schema.__name__} or its fields, not both")
        if not isinstance(given, schema):
            raise RegistrationError(f"expected a {schema.__name__}, got {given!r}")
        return given
    known = schema.__struct_fields__
    for name in fields:
        if name not in known:
            raise RegistrationError(
                f"{schema.__name__} has no field {name!r}{did_you_mean(name, known)}"
            )
    try:
        return schema(**fields)
    except TypeError as error:
        raise RegistrationError(f"{schema.__name__}: {error}") from None
