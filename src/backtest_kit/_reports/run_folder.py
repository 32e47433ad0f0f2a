"""A folder for each run: its report, figures, trades, settings and versions, kept until pruned."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from backtest_kit._reports.backtest import BacktestData, backtest_report
from backtest_kit._reports.table import safe_name, write_bytes
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.time import iso

#: Of a run's folder: what is in the run, and the run itself.
INFO: Final = "run.json"
DATA: Final = "data.json"
_VERSIONED: Final = ("backtest-kit", "numpy", "numba", "pyarrow")


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` says of a backtest; times in milliseconds UTC, profits in percent.

    `digest` is of strategy, source, settings, symbol and range: two runs with the same one differ
    in their data, or in code that the strategy calls.
    """

    version: int = 1
    started_at: int
    strategy_name: str
    symbol: str
    exchange_name: str
    since: int
    until: int
    trades: int
    total_pnl: float | None
    sharpe_ratio: float | None
    errors: int
    complete: bool
    digest: str
    versions: dict[str, str]


class KeptRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run in its folder; `info` is `None` where `damage` says what is wrong with it."""

    folder: Path
    info: RunInfo | None = None
    damage: str = ""


def keep_run(
    data: BacktestData,
    root: Path,
    started_at: int,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a backtest into a folder of its own under `root`, and return that folder.

    `started_at` in milliseconds UTC; `more` are further files by name, such as a page. The info is
    written last: a folder without it was not finished.

    Raises:
        OSError: it can't be written.
    """
    info = _info(data, started_at)
    day = iso(started_at // 1000 * 1000).replace(":", "")
    title = safe_name(f"{day} {data.strategy_name} {data.symbol} {info.digest[:8]}")
    folder = _new_folder(root, title.replace("%20", " ").replace(" ", "_"))
    write_bytes(msgspec.json.encode(data), folder, "data", ".json")
    write_bytes(backtest_report(data).encode(), folder, "report", ".md")
    if data.settings is not None:
        settings = msgspec.json.format(msgspec.json.encode(data.settings), indent=2)
        write_bytes(settings, folder, "settings", ".json")
    if data.source:
        write_bytes(data.source.encode(), folder, "strategy", ".py")
    data.trades.to_parquet(folder / "trades.parquet")
    data.equity.to_parquet(folder / "equity.parquet")
    for name, content in (more or {}).items():
        path = Path(name)
        write_bytes(content, folder, path.stem, path.suffix)
    write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=2), folder, "run", ".json")
    return folder


def kept_runs(root: Path) -> list[KeptRun]:
    """Return the runs under `root`, newest first; those that can't be read say why."""
    if not root.is_dir():
        return []
    found = [_read_info(folder) for folder in root.iterdir() if (folder / INFO).exists()]
    return sorted(
        found,
        key=lambda run: (run.info.started_at if run.info else 0, run.folder.name),
        reverse=True,
    )


def find_run(root: Path, name: str) -> Path:
    """Return the folder of a run: a path, the beginning of its name or digest, "last", "previous".

    Raises:
        BacktestKitError: there is none, or there are several; the message names them.
    """
    if (Path(name) / INFO).exists():
        return Path(name)
    runs = [run for run in kept_runs(root) if run.info is not None]
    newest = dict(zip(("last", "previous"), runs, strict=False))
    if name in newest:
        return newest[name].folder
    found = [
        run.folder
        for run in runs
        if run.folder.name.startswith(name) or (run.info and run.info.digest.startswith(name))
    ]
    if len(found) == 1:
        return found[0]
    there = ", ".join(run.folder.name for run in (runs if not found else runs[:10])[:10]) or "none"
    problem = f"{len(found)} runs begin with" if found else "no run is called"
    raise BacktestKitError(f"{problem} {name!r} in {root} (there are: {there})")


def read_run(folder: Path) -> BacktestData:
    """Return the backtest that a folder holds.

    Raises:
        BacktestKitError: it can't be read.
    """
    try:
        return msgspec.json.decode((folder / DATA).read_bytes(), type=BacktestData)
    except (OSError, msgspec.MsgspecError) as error:
        raise BacktestKitError(f"{folder / DATA} can't be read: {error}") from None


def prune_runs(root: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` runs, and return the folders that are gone.

    What can't be read is left alone.

    Raises:
        OSError: a folder can't be removed.
    """
    old = [run.folder for run in kept_runs(root) if run.info is not None][keep:]
    for folder in old:
        (folder / INFO).unlink()  # from now on it is no run, whatever happens
        shutil.rmtree(folder)
    return old


def _info(data: BacktestData, started_at: int) -> RunInfo:
    same = (data.strategy_name, data.source, data.settings, data.symbol, data.since, data.until)
    return RunInfo(
        started_at=started_at,
        strategy_name=data.strategy_name,
        symbol=data.symbol,
        exchange_name=data.exchange_name,
        since=data.since,
        until=data.until,
        trades=data.statistics.total_signals,
        total_pnl=data.statistics.total_pnl,
        sharpe_ratio=data.statistics.sharpe_ratio,
        errors=data.error_count,
        complete=data.complete,
        digest=hashlib.blake2b(msgspec.json.encode(same), digest_size=8).hexdigest(),
        versions={"python": platform.python_version(), **_versions()},
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _new_folder(root: Path, name: str) -> Path:
    """Return a folder that did not exist; runs of one second are numbered."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{root / name}: ten thousand runs of one second")


def _read_info(folder: Path) -> KeptRun:
    try:
        info = msgspec.json.decode((folder / INFO).read_bytes(), type=RunInfo)
    except (OSError, msgspec.MsgspecError) as error:
        return KeptRun(folder=folder, damage=str(error))
    return KeptRun(folder=folder, info=info)
