"""A folder for each backtest, walk and portfolio: report, figures, trades, settings, versions."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from backtest_kit._reports.backtest import BacktestData, backtest_report
from backtest_kit._reports.portfolio import portfolio_report
from backtest_kit._reports.portfolio_data import PortfolioData
from backtest_kit._reports.table import safe_name, write_bytes
from backtest_kit._reports.walker import walker_report
from backtest_kit._statistics.equity import AccountStatistics
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._statistics.sensitivity import Sensitivity
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.table import Table
from backtest_kit._values.time import iso

#: Of a run's folder: what is in the run, and the run itself.
INFO: Final = "run.json"
DATA: Final = "data.json"
REPORT: Final = "report.md"
SETTINGS: Final = "settings.json"
SENSITIVITY: Final = "sensitivity.json"
#: Of a walk: the trades of its strategies.
TRIALS: Final = "trials.json"
_VERSIONED: Final = ("backtest-kit", "numpy", "numba", "pyarrow")


Kind = Literal["backtest", "walk", "portfolio"]


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` says of a run; times in milliseconds UTC, profits in percent.

    Of a walk, `strategy_name` is its own name, and the figures are those of `best`. Of a portfolio
    they are those of its account: `total_pnl` is its growth. `digest` is of
    strategy, source, settings, symbol and range: two runs with the same one differ in their data,
    or in code that the strategy calls.
    """

    version: int = 1
    kind: Kind = "backtest"
    best: str | None = None
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
    depends: Sensitivity | None = None,
) -> Path:
    """Write a backtest into a folder of its own under `root`, and return that folder.

    `started_at` in milliseconds UTC; `more` are further files by name, such as a page; `depends` is
    what the profit depends on. The info is written last: a folder without it was not finished.

    Raises:
        OSError: it can't be written.
    """
    folder = _begin(info := _info(data, started_at), root)
    write_bytes(msgspec.json.encode(data), folder, "data", ".json")
    write_bytes(backtest_report(data, depends).encode(), folder, "report", ".md")
    if depends is not None:
        write_bytes(msgspec.json.encode(depends), folder, "sensitivity", ".json")
    if any(tick.fills for tick in data.signals):
        data.legs.to_parquet(folder / "legs.parquet")
    if data.source:
        write_bytes(data.source.encode(), folder, "strategy", ".py")
    data.trades.to_parquet(folder / "trades.parquet")
    data.equity.to_parquet(folder / "equity.parquet")
    return _finish(info, folder, data.settings, more)


def keep_walk(
    data: WalkerData,
    trials: Sequence[TrialResult],
    settings: Config,
    root: Path,
    started_at: int,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a walk into a folder of its own, as `keep_run` does a backtest."""
    folder = _begin(info := _walk_info(data, settings, started_at), root)
    write_bytes(msgspec.json.encode(data), folder, "data", ".json")
    write_bytes(msgspec.json.encode([*trials]), folder, "trials", ".json")
    write_bytes(walker_report(data).encode(), folder, "report", ".md")
    return _finish(info, folder, settings, more)


def keep_portfolio(
    data: PortfolioData,
    root: Path,
    started_at: int,
    source: str = "",
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write what runs on an account have found into a folder of its own, as `keep_run`."""
    folder = _begin(info := _portfolio_info(data, source, started_at), root)
    write_bytes(data.to_json().encode(), folder, "data", ".json")
    write_bytes(portfolio_report(data).encode(), folder, "report", ".md")
    if source:
        write_bytes(source.encode(), folder, "strategy", ".py")
    data.table().to_parquet(folder / "trades.parquet")
    timestamp, equity, balance, held = data.curve.columns()
    curve = {"timestamp": timestamp, "equity": equity, "balance": balance, "held": held}
    Table(curve, times=("timestamp",)).to_parquet(folder / "equity.parquet")
    return _finish(info, folder, data.runs[0].settings, more)


def _begin(info: RunInfo, root: Path) -> Path:
    day = iso(info.started_at // 1000 * 1000).replace(":", "")
    title = safe_name(f"{day} {info.strategy_name} {info.symbol} {info.digest[:8]}")
    return _new_folder(root, title.replace("%20", " ").replace(" ", "_"))


def _finish(
    info: RunInfo, folder: Path, settings: Config | None, more: Mapping[str, bytes] | None
) -> Path:
    if settings is not None:
        text = msgspec.json.format(msgspec.json.encode(settings), indent=2)
        write_bytes(text, folder, "settings", ".json")
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
        # an account comes after its runs, which began with it
        key=lambda run: (
            run.info.started_at if run.info else 0,
            run.info is not None and run.info.kind == "portfolio",
            run.folder.name,
        ),
        reverse=True,
    )


def find_run(root: Path, name: str, kind: Kind | None = None) -> Path:
    """Return the folder of a run: a path, the beginning of its name or digest, "last", "previous".

    `kind` leaves the others out.

    Raises:
        BacktestKitError: there is none, or there are several; the message names them.
    """
    for exact in (Path(name), root / name):
        if (exact / INFO).exists():
            return exact
    runs = [r for r in kept_runs(root) if r.info is not None and kind in (None, r.info.kind)]
    newest = dict(zip(("last", "previous"), runs, strict=False))
    if name in newest:
        return newest[name].folder
    if name in ("last", "previous"):
        raise BacktestKitError(
            f"there is no {name} {kind or 'run'} in {root}: it holds {len(runs)}; "
            "backtest-kit backtest makes one"
        )
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
    data: BacktestData = _read(folder / DATA, BacktestData)
    return data


def read_sensitivity(folder: Path) -> Sensitivity | None:
    """Return what the profit of a folder's backtest depends on, if it is there; as `read_run`."""
    if not (folder / SENSITIVITY).exists():  # written by a release that did not keep it
        return None
    found: Sensitivity = _read(folder / SENSITIVITY, Sensitivity)
    return found


def read_walk(folder: Path) -> tuple[WalkerData, list[TrialResult]]:
    """Return the walk that a folder holds, and its trials; raises as `read_run`."""
    return _read(folder / DATA, WalkerData), _read(folder / TRIALS, list[TrialResult])


def read_info(folder: Path) -> RunInfo:
    """Return what a folder's run is; raises as `read_run`."""
    info: RunInfo = _read(folder / INFO, RunInfo)
    return info


class KeptPortfolio(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder holds of an account, its terms by name; a part of what its JSON says."""

    account: dict[str, Any]
    exchange_name: str
    since: int
    until: int
    statistics: AccountStatistics


def read_portfolio(folder: Path) -> KeptPortfolio:
    """Return what a folder holds of an account; raises as `read_run`."""
    data: KeptPortfolio = _read(folder / DATA, KeptPortfolio)
    return data


def read_settings(folder: Path) -> Config | None:
    """Return the settings of a folder's run, where they are known; raises as `read_run`."""
    if not (folder / SETTINGS).exists():
        return None
    settings: Config = _read(folder / SETTINGS, Config)
    return settings


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise BacktestKitError(f"{path} can't be read: {error}") from None


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
        digest=_digest(same),
        versions={"python": platform.python_version(), **_versions()},
    )


def _walk_info(data: WalkerData, settings: Config, started_at: int) -> RunInfo:
    names = sorted(row.strategy_name for row in data.ranking)
    same = (data.walker_name, names, data.metric, settings, data.symbols, data.since, data.until)
    best = data.ranking[0].statistics if data.best_strategy is not None else None
    return RunInfo(
        kind="walk",
        best=data.best_strategy,
        started_at=started_at,
        strategy_name=data.walker_name,
        symbol="+".join(data.symbols),
        exchange_name=data.exchange_name,
        since=data.since,
        until=data.until,
        trades=0 if best is None else best.total_signals,
        total_pnl=None if best is None else best.total_pnl,
        sharpe_ratio=None if best is None else best.sharpe_ratio,
        errors=sum(row.error is not None for row in data.ranking),
        complete=data.complete,
        digest=_digest(same),
        versions={"python": platform.python_version(), **_versions()},
    )


def _portfolio_info(data: PortfolioData, source: str, started_at: int) -> RunInfo:
    settings, s = [run.settings for run in data.runs], data.statistics
    same = (data.account, data.names, source, settings, data.since, data.until)
    strategies, symbols = (dict.fromkeys(names) for names in zip(*data.names, strict=True))
    return RunInfo(
        kind="portfolio",
        started_at=started_at,
        strategy_name="+".join(strategies),
        symbol="+".join(symbols),
        exchange_name=data.exchange_name,
        since=data.since,
        until=data.until,
        trades=s.total_trades,
        total_pnl=s.growth_percent,
        sharpe_ratio=s.sharpe_ratio,
        errors=sum(run.error_count for run in data.runs),
        complete=all(run.complete for run in data.runs),
        digest=_digest(same),
        versions={"python": platform.python_version(), **_versions()},
    )


def _digest(same: object) -> str:
    return hashlib.blake2b(msgspec.json.encode(same), digest_size=8).hexdigest()


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
