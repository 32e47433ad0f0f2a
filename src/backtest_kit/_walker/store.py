"""The store of walks: results of trials, and every variant tried, in one SQLite file."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from backtest_kit._statistics.trial_result import OtherTrial, TradeColumns, TrialResult
from backtest_kit._values.errors import StateError
from backtest_kit._walker.data_identity import share

_VERSION: Final = 1
_TABLES: Final = """
BEGIN;
CREATE TABLE trials (fingerprint TEXT PRIMARY KEY, trial BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE ledger (variant TEXT, symbol TEXT, since INTEGER, until INTEGER,
                     PRIMARY KEY (variant, symbol, since, until)) WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT;
"""
#: What a release before these tables does not need: it reads and writes the others.
_LATER_TABLES: Final = """
CREATE TABLE IF NOT EXISTS data (digest TEXT PRIMARY KEY, hours BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tried (variant TEXT, since INTEGER, until INTEGER, data TEXT,
                                  fingerprint TEXT,
                                  PRIMARY KEY (variant, since, until, data)) WITHOUT ROWID;
"""


class TrialKey(msgspec.Struct, frozen=True):
    """The identity of a trial.

    `fingerprint` covers all that the figures depend on; `variant` covers the strategy and the
    settings alone, tried on `symbols` from `since` to `until` (milliseconds, both included).
    `hours` are the candles there (`data_identity`); empty where they are not known. `unseen` is
    what the strategy reads that the fingerprint does not cover (`unseen_by`).
    """

    fingerprint: str
    variant: str
    symbols: tuple[str, ...]
    since: int
    until: int
    hours: bytes = b""
    unseen: tuple[str, ...] = ()


class _OnlyTrades(msgspec.Struct):
    """What is read of a trial that a walk did not run."""

    trades: TradeColumns


class WalkStore:
    """The results of finished trials, in `folder`/walks.db; several processes may use it at once.

    Each method raises StateError if the file can't be read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "walks.db"

    def find(self, keys: Sequence[TrialKey]) -> dict[str, TrialResult]:
        """Return the stored results by fingerprint; one that can't be decoded is left out."""
        found = {}
        with self._open() as file:
            for key in keys:
                row = file.execute(
                    "SELECT trial FROM trials WHERE fingerprint = ?", (key.fingerprint,)
                ).fetchone()
                try:
                    if row is not None:
                        found[key.fingerprint] = msgspec.msgpack.decode(row[0], type=TrialResult)
                except msgspec.MsgspecError:
                    continue
        return found

    def put(self, key: TrialKey, result: TrialResult | None) -> None:
        """Store a result durably, and count its variant as tried; `None` only counts it."""
        with self._open() as file, file:
            if result is not None:
                file.execute(
                    "INSERT OR REPLACE INTO trials VALUES (?, ?)",
                    (key.fingerprint, msgspec.msgpack.encode(result)),
                )
            file.executemany(
                "INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?)",
                [(key.variant, symbol, key.since, key.until) for symbol in key.symbols],
            )
            if key.hours:
                data = _digest(key.hours)
                if not file.execute("SELECT 1 FROM data WHERE digest = ?", (data,)).fetchone():
                    file.execute("INSERT INTO data VALUES (?, ?)", (data, key.hours))
                file.execute(
                    "INSERT OR IGNORE INTO tried VALUES (?, ?, ?, ?, ?)",
                    (key.variant, key.since, key.until, data, key.fingerprint),
                )

    def variants_tried(
        self, symbols: Sequence[str], since: int, until: int, hours: bytes = b""
    ) -> int:
        """Return how many variants were tried on the same candles over an overlapping period.

        The period is [since, until], milliseconds. The same candles are those that share an hour or
        a day with `hours`. Where either's are not known (a trial of an earlier release), they are
        those of any of the symbols.
        """
        marks = ", ".join("?" * len(symbols))
        by_name = (
            "SELECT DISTINCT variant FROM ledger WHERE since <= ? AND until >= ? "  # noqa: S608 - question marks
            f"AND symbol IN ({marks})"
        )
        with self._open() as file:
            if hours:
                by_name += (
                    " AND NOT EXISTS (SELECT 1 FROM tried WHERE tried.variant = ledger.variant "
                    "AND tried.since = ledger.since AND tried.until = ledger.until)"
                )
            found = {row[0] for row in file.execute(by_name, (until, since, *symbols))}
            if hours:
                overlapping = "FROM tried WHERE since <= ? AND until >= ?"
                others = file.execute(
                    f"SELECT digest, hours FROM data WHERE digest IN (SELECT data {overlapping})",  # noqa: S608 - a constant
                    (until, since),
                )
                same = {data for data, theirs in others if share(hours, theirs)}
                rows = file.execute(f"SELECT variant, data {overlapping}", (until, since))
                found |= {variant for variant, data in rows if data in same}
        return len(found)

    def trades_of_others(
        self, since: int, until: int, hours: bytes, variants: Collection[str]
    ) -> list[OtherTrial]:
        """Return the trades of further variants tried on the same candles, as `variants_tried`.

        Each variant but those given once, from its trial that shares most of the period. Trials of
        an earlier release, and those whose result is not stored, have none.
        """
        overlapping = "FROM tried WHERE since <= ? AND until >= ?"
        longest: dict[str, tuple[int, int, int, bytes]] = {}
        with self._open() as file:
            theirs = file.execute(
                f"SELECT digest, hours FROM data WHERE digest IN (SELECT data {overlapping})",  # noqa: S608 - a constant
                (until, since),
            )
            same = {data for data, of in theirs if share(hours, of)} if hours else set()
            rows = file.execute(
                "SELECT variant, since, until, data, trial FROM tried "
                "JOIN trials USING (fingerprint) WHERE since <= ? AND until >= ? "
                "ORDER BY variant, since, until, data",
                (until, since),
            )
            for variant, begin, end, data, trial in rows:
                common = min(end, until) - max(begin, since)
                best = longest.get(variant)
                if data in same and variant not in variants and (best is None or common > best[0]):
                    longest[variant] = common, begin, end, trial
        found = []
        for _, begin, end, trial in longest.values():
            try:
                trades = msgspec.msgpack.decode(trial, type=_OnlyTrades).trades
            except msgspec.MsgspecError:
                continue
            found.append(OtherTrial(trades, begin, end))
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as file:
                file.execute("PRAGMA synchronous = FULL")
                (version,) = file.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    _create_tables(file)
                elif version > _VERSION:
                    raise StateError(
                        f"{self.path} was written by a newer release (version {version}); use "
                        "that one, or another folder"
                    )
                file.executescript(_LATER_TABLES)
                yield file
        except (OSError, sqlite3.Error) as error:
            raise StateError(
                f"the trials in {self.path} can't be used: {error}; make the folder writable, "
                "choose another one, or move the file away to start over"
            ) from error


@lru_cache(maxsize=8)
def _digest(hours: bytes) -> str:
    return hashlib.blake2b(hours, digest_size=16).hexdigest()


def _create_tables(file: sqlite3.Connection) -> None:
    try:
        file.executescript(_TABLES)
    except sqlite3.OperationalError:
        file.rollback()
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version == 0:  # otherwise another process has just created them
            raise
