"""`backtest-kit data download`, `update`, `list`, `export`, and commands that read a catalog."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest

pytest.importorskip("ccxt", reason="needs ccxt")

import backtest_kit as bk
from backtest_kit import exchanges
from command import PATIENCE, run_here
from exchanges.ccxt_server import BinanceServer
from markets import MINUTE, market

#: 2024-01-30T00:00Z: two days, over the border of a month.
BEGIN, ROUND = 1_706_572_800_000, 2 * 1440
ROWS = [(BEGIN + i * MINUTE, *row[1:]) for i, row in enumerate(market(3, ROUND, gaps=False))]
STRATEGY = """
import backtest_kit as bk
bk.add_strategy(strategy_name="first", interval="5m", get_signal=lambda symbol, when: None)
"""
LOADED = "--symbol", "BTC/USDT", "--from", "2024-01-30", "--to", "2024-02-01"


def serve(server, patch):
    """Let the name of an exchange mean the server."""
    made = server.exchange("binance")
    patch.setattr(exchanges, "CcxtExchange", lambda name: made)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with a catalog that the command has filled, and what the command said."""
    folder = tmp_path_factory.mktemp("commands")
    with BinanceServer(ROWS) as server, pytest.MonkeyPatch.context() as patch:
        serve(server, patch)
        done = run_here(
            *("data", "download", "--exchange", "binance", "--source", "venue"),
            *("--symbol", "ETH/USDT", *LOADED),
            cwd=folder,
        )
    return folder, done


def test_a_download_says_what_came(filled):
    folder, done = filled
    assert done.returncode == 0, done.stderr
    assert f"BTC/USDT 1m of binance: {ROUND:,} candles came\n" in done.stdout
    listed = run_here("data", "list", cwd=folder).stdout
    assert "2024-01-30T00:00Z" in listed
    assert f"{ROUND:,}" in listed
    found = json.loads(run_here("data", "list", "--json", cwd=folder).stdout)
    assert [(series["symbol"], series["rows"]) for series in found] == [
        ("BTC/USDT", ROUND),
        ("ETH/USDT", ROUND),
    ]


def test_what_was_not_had_is_told_and_the_exit_code_says_so(tmp_path):
    with BinanceServer(ROWS) as server, pytest.MonkeyPatch.context() as patch:
        serve(server, patch)
        words = "data", "download", "--exchange", "binance", "--source", "venue", "--symbol", "NO/X"
        done = run_here(*words, *LOADED, cwd=tmp_path)
        told = json.loads(run_here(*words, *LOADED, "--json", cwd=tmp_path).stdout)
    assert done.returncode == 1
    assert "not had: 2024-01-30T00:00Z to 2024-02-01T00:00Z: " in done.stdout
    assert "NO/X" in told["series"][0]["problems"][0]["message"]
    assert not told["series"][1]["problems"]


def test_a_catalog_is_exported(filled, tmp_path):
    folder, _ = filled
    words = "data", "export", tmp_path / "out.csv", "--symbol", "BTC/USDT"
    assert run_here(*words, cwd=folder).returncode == 0
    assert pd.read_csv(tmp_path / "out.csv").to_numpy().tolist() == [[*row] for row in ROWS]
    assert "use --force" in run_here(*words, cwd=folder).stderr
    words = "data", "export", tmp_path / "out.parquet", "--symbol", "BTC/USDT", "--interval", "1h"
    done = run_here(*words, "--from", "2024-01-30T00:30", cwd=folder)
    assert done.returncode == 0, done.stderr
    whole = bk.Candles(*zip(*ROWS, strict=True)).resample("1h")
    exported = bk.exchanges.ParquetExchange(tmp_path / "out.parquet")
    assert exported.series("X").read(0, 2**60) == whole[1:]


def test_every_command_reads_a_catalog(filled):
    folder, _ = filled
    (folder / "own.py").write_text(STRATEGY)
    words = "own.py", "--symbol", "BTC/USDT", "--data", "data"
    for more in ((), ("--exchange", "binance")):
        done = run_here("backtest", *words, *more, cwd=folder)
        assert done.returncode == 0, done.stderr
    missing = run_here("backtest", *words, "--exchange", "kraken", cwd=folder)
    assert "no candles of 'kraken'" in missing.stderr
    found = bk.backtest(
        folder / "data", lambda symbol, when: None, symbol="BTC/USDT", interval="5m"
    )
    assert found is not None


def test_a_catalog_is_checked(filled):
    folder, _ = filled
    done = run_here("data", "check", "data", cwd=folder)
    assert done.returncode == 0, done.stdout
    found = json.loads(run_here("data", "check", "data", "--json", cwd=folder).stdout)
    assert [(report["rows"], report["missing"]) for report in found] == [(ROUND, 0)] * 2
    damaged = shutil.copytree(folder / "data", folder / "damaged")
    path = next(damaged.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    done = run_here("data", "check", "damaged", cwd=folder)
    assert done.returncode == 1
    assert "can't be read as Parquet" in done.stdout


DRIVER = """
import asyncio, os, signal, sys
from backtest_kit import exchanges
from backtest_kit.cli import main

STOP = int(sys.argv[1])

class Slow:
    exchange_name, page_limit, intervals, asked = "binance", 100, ("1m",), 0

    def __init__(self, name):
        pass

    async def get_candles(self, symbol, interval, since, limit):
        Slow.asked += 1
        if Slow.asked == STOP:
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        return [[since + i * 60000, 1, 1, 1, 1, 1] for i in range(limit)]

exchanges.CcxtExchange = Slow
sys.argv = ["backtest-kit", *sys.argv[2:]]
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_download_goes_on_after_ctrl_c(tmp_path):
    words = "data", "download", "--exchange", "binance", "--source", "venue", *LOADED

    def download(stop):
        return subprocess.run(
            [sys.executable, "-c", DRIVER, str(stop), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    done = download(22)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert "is whole, and the same command goes on" in done.stderr
    (series,) = bk.data.describe(tmp_path / "data")
    assert 0 < series.rows < ROUND
    done = download(0)
    assert done.returncode == 0, done.stderr
    assert f"{ROUND - series.rows:,} candles came" in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("download", "--exchange", "binanse", *LOADED), "did you mean 'binance'"),
        (("download", "--exchange", "binance", "--symbol", "X"), "give --from"),
        (("download", "--exchange", "binance", "--symbol", "X", "--from", "soon"), "--from 'soon'"),
        (
            ("download", "--exchange", "binance", "--symbol", "X", "--from", "2999-01-01"),
            "in the future",
        ),
        (("download", "--exchange", "kraken", *LOADED, "--source", "archive"), "the archive has"),
        (("download", "--exchange", "binance", *LOADED, "--catalog", "file"), "file"),
        (("export", "a.txt", "--symbol", "X"), "must end in"),
        (("export", "a.csv", "--symbol", "X"), "has candles of nothing"),
    ],
)
def test_a_mistake_is_one_line(words, text, tmp_path):
    (tmp_path / "file").write_text("")
    done = run_here("data", *words, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
