"""The pages for those who come from elsewhere: both programs run, and their trades are compared.

The other library is looked for in this environment, and in the interpreters that
`BACKTEST_KIT_PEERS` names (several with the separator of PATH): `pip install --group peers`, and
`--group peers-freqtrade` in an environment of its own. Where it is not installed, the test skips.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

import backtest_kit as bk

pd = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[2]
HOUR = pd.Timedelta("1h")
OFFLINE = Path(__file__).with_name("freqtrade_offline.py")


def programs(page):
    """Return the blocks of a page that have a title, by it."""
    tokens = MarkdownIt().parse((ROOT / "docs" / "migration" / page).read_text("utf-8"))
    found = [token for token in tokens if token.type == "fence" and "title=" in token.info]
    return {token.info.split('title="')[1].rstrip('"'): token.content for token in found}


@functools.cache
def interpreter_with(module):
    """Return an interpreter that has the module, or skip the test."""
    named = os.environ.get("BACKTEST_KIT_PEERS", "").split(os.pathsep)
    paths = [str(Path(path).absolute()) for path in named if path]  # a link must not be followed
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    for python in [sys.executable, *paths]:
        if not subprocess.run([python, "-c", code], check=False).returncode:
            return python
    pytest.skip(f"{module} is not installed here, nor in an interpreter of BACKTEST_KIT_PEERS")


def run(python, *arguments, cwd):
    done = subprocess.run(
        [python, *arguments], cwd=cwd, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def own(code, folder, monkeypatch):
    """Return the trades of our program: candle of entry and of exit, prices, reason."""
    monkeypatch.chdir(folder)
    namespace = {}
    exec(code, namespace)
    found = namespace["trades"]
    found = found[found["close_reason"] != "end_of_data"].reset_index(drop=True)
    return pd.DataFrame(
        {
            "entry": found["opened_at"] - HOUR,  # the candle that had closed then
            "exit": found["closed_at"] - HOUR,
            "price_in": found["price_open"],
            "price_out": found["price_close"],
            "reason": found["close_reason"],
        }
    )


def theirs(path, columns):
    found = pd.read_csv(path)
    if "Status" in found:  # vectorbt: what is open at the end is in the records
        found = found[found["Status"] == "Closed"]
    if "exit_reason" in found:  # freqtrade closes it
        found = found[found["exit_reason"] != "force_exit"]
    found = (
        found[columns]
        .reset_index(drop=True)
        .set_axis(["entry", "exit", "price_in", "price_out"], axis=1)
    )
    for name in ("entry", "exit"):
        found[name] = pd.to_datetime(found[name], utc=True)
    return found


def candles(folder, monkeypatch, code, real_folder):
    """Write the candles of the page, or hours of BTCUSDT where real ones are there."""
    if real_folder is None:
        monkeypatch.chdir(folder)
        exec(code, {})
        return
    path = real_folder / "BTCUSDT-1m-2023.parquet"
    hours = bk.read_candles(path, interval="1h")
    hours.to_pandas().to_csv(folder / "candles.csv")


@pytest.fixture(params=["random", "real"])
def source(request):
    """Where candles come from: None, or the folder of real ones."""
    return None if request.param == "random" else request.getfixturevalue("real_data")


EXACT = {
    "backtesting-py.md": (
        "backtesting",
        "trades",
        ["EntryTime", "ExitTime", "EntryPrice", "ExitPrice"],
    ),
    "vectorbt.md": (
        "vectorbt",
        "trades",
        ["Entry Timestamp", "Exit Timestamp", "Avg Entry Price", "Avg Exit Price"],
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [*EXACT])
def test_both_make_the_same_trades(page, source, tmp_path, monkeypatch):
    module, name, columns = EXACT[page]
    python, codes = interpreter_with(module), programs(page)
    candles(tmp_path, monkeypatch, codes["candles.py"], source)
    mine = own(codes["ours.py"], tmp_path, monkeypatch)
    (tmp_path / "theirs.py").write_text(
        codes["theirs.py"] + f'\n{name}.to_csv("theirs.csv", index=False)\n', encoding="utf-8"
    )
    run(python, "theirs.py", cwd=tmp_path)
    others = theirs(tmp_path / "theirs.csv", columns)
    assert len(mine) == len(others) > 50
    for column in ("entry", "exit"):
        assert (mine[column] == others[column]).all()
    for column in ("price_in", "price_out"):
        np.testing.assert_allclose(mine[column], others[column], rtol=1e-9)


@pytest.mark.timeout(300)
def test_freqtrade_makes_the_same_trades(source, tmp_path, monkeypatch):
    """It enters at the next open and rounds to a tick; a late exit is at the next open too."""
    python, codes = interpreter_with("freqtrade"), programs("freqtrade.md")
    candles(tmp_path, monkeypatch, codes["candles.py"], source)
    mine = own(codes["ours.py"], tmp_path, monkeypatch)
    folder = tmp_path / "strategies"
    folder.mkdir()
    (folder / "crossover.py").write_text(codes["theirs.py"], encoding="utf-8")
    run(python, OFFLINE, folder / "crossover.py", "candles.csv", "theirs.csv", cwd=tmp_path)
    columns = ["open_date", "close_date", "open_rate", "close_rate"]
    others = theirs(tmp_path / "theirs.csv", columns)
    late = mine["reason"] == "time_expired"
    assert len(mine) == len(others) > 50
    assert (mine["entry"] == others["entry"] - HOUR).all()
    assert (mine["exit"] == others["exit"] - late.astype(int) * HOUR).all()
    np.testing.assert_allclose(mine["price_in"], others["price_in"], rtol=1e-4)
    far = ~np.isclose(mine["price_out"], others["price_out"], rtol=1e-4)
    # the stop of the candle after the last is looked at before the exit by time
    assert far.sum() <= (0 if source is None else 1)
    assert late[far].all()
