"""`backtest-kit init`: a project that runs, to be changed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import click

from backtest_kit._engine.task import run_blocking
from backtest_kit._values.candles import COLUMNS, read_candles
from backtest_kit._values.time import to_ms
from backtest_kit.exchanges import SyntheticExchange

_SUFFIX = ".template"
#: The random market that comes with a project.
_SEED, _BEGIN, _LENGTH = 7, datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=60)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project in FOLDER: a strategy, candles, tests, a notebook and a Makefile.

    \b
        backtest-kit init my_project
        cd my_project && make backtest
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.UsageError(f"{folder} exists and is not empty; choose another name")
    name = folder.resolve().name
    words = {
        "name": name,
        "package": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "strategy",
        "version": metadata.version("backtest-kit"),
    }
    _copy(files("backtest_kit.cli") / "project", folder, words)
    _random_market(folder / "data" / "RANDOM.parquet")
    click.echo(
        f"made {folder}: strategy.py, its tests, a notebook, and 60 days of a random market\n"
        f"next: cd {folder} && make backtest"
    )


def _copy(source: Traversable, target: Path, words: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy(entry, target / entry.name, words)
        elif entry.name.endswith(_SUFFIX):
            name = entry.name.removesuffix(_SUFFIX)
            text = Template(entry.read_text(encoding="utf-8")).substitute(words)
            path = target / (".gitignore" if name == "gitignore" else name)
            path.write_text(text, encoding="utf-8")


def _random_market(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    minutes = _LENGTH // timedelta(minutes=1)
    exchange = SyntheticExchange(seed=_SEED)
    begin = to_ms(_BEGIN)
    candles = read_candles(
        run_blocking(lambda: exchange.get_candles("RANDOM", "1m", begin, minutes))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(zip(COLUMNS, candles.columns(), strict=True)))
    pq.write_table(table, path, compression="zstd")
