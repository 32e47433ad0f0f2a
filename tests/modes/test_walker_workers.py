"""Walks in other processes: the same contracts, order and figures; workers that die."""

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backtest_kit as bk
from backtest_kit._engine.engine import current_engine
from backtest_kit._walker.pool_runner import PoolRunner
from backtest_kit._walker.spool import read_spool, remove_stale_folders, spool_folder, write_spool
from backtest_kit._walker.trial import TrialSetup
from command import PATIENCE
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=30)
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows, SIGTERM kills too
NAMES = [f"s{i}" for i in range(8)]
FRESH = bk.Windows(train=timedelta(hours=25), test=timedelta(hours=20), fresh=True, min_metric=-9)


def crossover(fast, slow, dies=None):
    """A closure, which plain pickle can't send."""

    async def get_signal(symbol, when):
        closes = (await bk.get_candles(symbol, "5m", slow)).close
        if dies is not None and not Path(dies).exists():
            Path(dies).touch()
            os.kill(os.getpid(), KILL)
        if closes[-fast:].mean() <= closes.mean():
            return None
        price = await bk.get_average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=price * 1.01,
            price_stop_loss=price * 0.99,
            minute_estimated_time=30,
        )

    return get_signal


def test_what_a_killed_walk_left_behind_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folders = [tmp_path / f"backtest-kit-{part}" for part in (f"{dead.pid}-x", f"{os.getpid()}-y")]
    for folder in (*folders, tmp_path / "backtest-kit-mine-z"):
        folder.mkdir()
        (folder / "job").touch()
    remove_stale_folders()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [folders[1].name, "backtest-kit-mine-z"]
    )


ORPHANS = """
import os, sys, time
from datetime import UTC, datetime, timedelta
import backtest_kit as bk

def make(name):
    def get_signal(symbol, when):
        if when == begin:
            os.write(1, f"{name}\\n".encode())  # in one piece, whoever else writes
        while name == "spins":
            pass
        if name == "holds":  # one call in C, in which no other thread gets a turn
            sum(range(10**13))
        if name == "sleeps":
            time.sleep(1000)
    return get_signal

begin = datetime(2024, 1, 1, tzinfo=UTC)
names = sys.argv[2:]
os.cpu_count = lambda: len(names)  # so many workers, of which one is idle soon

if __name__ == "__main__":
    if sys.argv[1] == "forked":  # what holds open the pipe by which workers are told
        import multiprocessing.util
        from multiprocessing import resource_tracker
        tracker = resource_tracker.getfd()
        start = multiprocessing.util.spawnv_passfds
        def start_and_fork(*arguments):
            pid = start(*arguments)
            if os.fork() == 0:
                os.close(1)
                os.close(tracker)
                time.sleep(1000)
            return pid
        multiprocessing.util.spawnv_passfds = start_and_fork
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    bk.add_frame(frame_name="f", interval="1m", start_date=begin, end_date=begin + timedelta(1))
    for name in names:
        bk.add_strategy(strategy_name=name, interval="1m", get_signal=make(name))
    where = dict(exchange_name=bk.list_exchanges()[0].exchange_name, frame_name="f")
    bk.add_walker(walker_name="w", strategies=names, **where)
    bk.Walker.run_sync("X", walker_name="w", executor="processes")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="workers do not inherit the pipe to this test there")
@pytest.mark.parametrize("parent", ["plain", "forked"])
def test_workers_end_when_their_parent_is_killed(tmp_path, parent):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    names = ["ends", "sleeps", "spins"]
    if parent == "plain" and sys.platform == "linux":
        names.append("holds")  # elsewhere nobody but a thread of its own could end it
    process = subprocess.Popen(
        [sys.executable, "orphans.py", parent, *names],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        begun = {process.stdout.readline().strip() for _ in names}
        assert begun == {*names}
        process.kill()
        # the end of the pipe: nobody who had inherited it is there any more
        process.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def fails(symbol, when):
    raise RuntimeError("no idea")


def register(exchange=None, dies=None, windows=None):
    bk.add_exchange(exchange or bk.exchanges.FrameExchange(market(2, 4000)))
    name = bk.list_exchanges()[-1].exchange_name
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=BEGIN + timedelta(hours=5),
        end_date=BEGIN + timedelta(hours=60),
    )
    bk.add_risk(risk_name="r", validations=[lambda c: "odd" if c.timestamp % 120_000 else None])
    for i, strategy_name in enumerate(NAMES):
        function = crossover(2 + i, 20 + i, dies if i == 3 else None)
        bk.add_strategy(
            strategy_name=strategy_name,
            interval="5m",
            get_signal=fails if i == 5 else function,
            risk_name="r" if i % 2 else None,
        )
    bk.add_walker(
        walker_name="w", exchange_name=name, frame_name="f", strategies=NAMES, windows=windows
    )


def walk(executor=None, symbol="X"):
    contracts = bk.Walker.run_sync(symbol, walker_name="w", executor=executor)
    data = bk.Walker.get_data(symbol, walker_name="w")
    assert [row.draws for row in data.benchmarks] == [0, 200]
    return contracts, data, bk.Walker.get_report(symbol, walker_name="w")


@pytest.mark.slow
def test_processes_give_what_one_process_gives():
    register(windows=FRESH)
    told = []
    bk.listen_walker(told.append)
    bk.set_config(percent_fee=0.03)
    alone = walk(symbol=["X", "Y"])
    assert len({c.metric_value for c in alone[0]}) > 5
    assert walk("processes", ["X", "Y"]) == alone
    assert told == [*alone[0], *alone[0]]


@pytest.mark.parametrize("kind", ["threads", "processes of one's own"])
def test_any_executor_will_do(kind):
    register()
    alone = walk()
    executor: Executor = (
        ThreadPoolExecutor(2)
        if kind == "threads"
        else ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    )
    with executor:
        assert walk(executor) == alone
        assert executor.submit(int, "3").result() == 3, "it is left to its owner"


@pytest.mark.slow
def test_a_cluster_of_two_workers():
    distributed = pytest.importorskip("distributed")
    register(windows=FRESH)
    alone = walk()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert walk(client.get_executor()) == alone


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nothing_is_different(tmp_path, caplog):
    register(dies=str(tmp_path / "died"))
    (tmp_path / "died").touch()
    alone = walk()
    (tmp_path / "died").unlink()
    caplog.set_level("WARNING")
    assert walk("processes") == alone
    assert (tmp_path / "died").exists()
    assert "a worker died" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [None, "once", "always"])
def test_trials_over_arrays_go_to_workers_several_at_once(tmp_path, monkeypatch, deadly):
    pytest.importorskip("numba", reason="needs Numba: pip install 'backtest-kit[numba]'")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    sizes = []
    submit = PoolRunner._submit
    monkeypatch.setattr(
        PoolRunner,
        "_submit",
        lambda self, batch, parts: sizes.append(len(batch)) or submit(self, batch, parts),
    )
    sent = tmp_path / "sent"
    sent.mkdir()

    def make(count):
        def get_signals(candles):
            if deadly is not None and count == 31 and sent.exists():
                if deadly == "once":
                    sent.rename(tmp_path / "gone")
                os.kill(os.getpid(), KILL)
            if count == 40:
                raise RuntimeError("no idea")
            return bk.Signals.bracket(
                candles.close > bk.trailing_mean(candles.close, count), 1.0, 0.8, 30
            )

        return {"interval": "5m", "get_signals": get_signals, "warmup": count}

    register()
    names = bk.grid(make, count=tuple(range(3, 60)))
    bk.add_walker(walker_name="a", exchange_name="frame", frame_name="f", strategies=names)
    hidden = sent.rename(tmp_path / "hidden")
    alone = bk.Walker.run_sync("X", walker_name="a")
    hidden.rename(sent)
    there = bk.Walker.run_sync("X", walker_name="a", executor="processes")
    assert sizes[:9] == [7] * 8 + [1]
    dead = names[28]
    if deadly == "always":
        assert "a worker died 3 times" in there[28].error
        assert not any("worker died" in (c.error or "") for c in there if c.strategy_name != dead)
        assert {c.strategy_name: c.metric_value for c in there if c.strategy_name != dead} == {
            c.strategy_name: c.metric_value for c in alone if c.strategy_name != dead
        }
    else:
        assert there == alone
    assert (tmp_path / "gone").exists() == (deadly == "once")
    assert len({c.metric_value for c in alone}) > 40


@pytest.mark.slow
def test_a_strategy_that_kills_its_worker_each_time_fails_and_the_others_go_on(tmp_path):
    register(dies=str(tmp_path / "none" / "such"))  # can't be made: dies again and again
    bk.add_strategy(strategy_name="deadly", interval="5m", get_signal=_die)
    bk.add_walker(
        walker_name="v", exchange_name="frame", frame_name="f", strategies=["s0", "deadly", "s1"]
    )
    contracts = bk.Walker.run_sync("X", walker_name="v", executor="processes")
    assert [c.error is None for c in contracts] == [True, False, True]
    assert "a worker died 3 times in the trial of strategy 'deadly'" in contracts[1].error


@pytest.mark.slow
def test_only_the_one_that_kills_its_worker_is_blamed():
    def slow(symbol, when):
        time.sleep(0.01)

    register()
    bk.add_strategy(strategy_name="slow", interval="1h", get_signal=slow)
    bk.add_strategy(strategy_name="deadly", interval="5m", get_signal=_die)
    names = ["slow", "s0", "deadly", "s1"]
    bk.add_walker(walker_name="v", exchange_name="frame", frame_name="f", strategies=names)
    contracts = bk.Walker.run_sync("X", walker_name="v", executor="processes")
    assert [c.error is None for c in contracts] == [True, True, False, True]


@pytest.mark.slow
def test_several_that_kill_their_workers_are_blamed_one_after_another():
    """The second is met after the suspects of the first, whose old batches stay broken."""
    register()
    names = [f"d{i}" if i in (0, 10) else f"i{i}" for i in range(14)]
    for name in names:
        function = _die if name in ("d0", "d10") else (lambda symbol, when: None)
        bk.add_strategy(strategy_name=name, interval="1h", get_signal=function)
    bk.add_walker(walker_name="v", exchange_name="frame", frame_name="f", strategies=names)
    contracts = bk.Walker.run_sync("X", walker_name="v", executor="processes")
    assert [c.strategy_name for c in contracts if c.error is not None] == ["d0", "d10"]


def test_an_executor_that_is_shut_down_is_an_error_that_says_so():
    register()
    bk.add_walker(walker_name="v", exchange_name="frame", frame_name="f", strategies=NAMES)

    async def main():
        executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        errors = []
        async for contract in bk.Walker.run("X", walker_name="v", executor=executor):
            executor.shutdown(wait=False, cancel_futures=True)
            errors.append(contract.error)
        return errors

    errors = asyncio.run(main())
    assert len(errors) == len(NAMES)
    assert "the executor was shut down" in errors[-1]


def _die(symbol, when):
    os.kill(os.getpid(), KILL)


def test_an_executor_that_is_broken_is_an_error_that_says_so():
    register()
    bk.add_strategy(strategy_name="deadly", interval="5m", get_signal=_die)
    bk.add_walker(walker_name="v", exchange_name="frame", frame_name="f", strategies=["deadly"])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        (contract,) = bk.Walker.run_sync("X", walker_name="v", executor=executor)
    assert "the executor is broken" in contract.error


def test_what_can_not_be_sent_is_named_before_anything_runs():
    lock = threading.Lock()

    def locked(symbol, when):
        with lock:
            return

    register()
    bk.add_strategy(strategy_name="locked", interval="5m", get_signal=locked)
    bk.add_walker(
        walker_name="v", exchange_name="frame", frame_name="f", strategies=["s0", "locked"]
    )
    with pytest.raises(bk.WorkerError, match="strategy 'locked' can't be sent to a worker"):
        bk.Walker.run_sync("X", walker_name="v", executor="processes")

    async def get_candles(symbol, interval, since, limit):
        with lock:
            return []

    bk.add_exchange(exchange_name="own", get_candles=get_candles)
    bk.add_walker(walker_name="u", exchange_name="own", frame_name="f", strategies=["s0"])
    with pytest.raises(bk.WorkerError, match="exchange 'own' can't be sent"):
        bk.Walker.run_sync("X", walker_name="u", executor="processes")
    with pytest.raises(TypeError, match="executor='threads'"):
        bk.Walker.run_sync("X", walker_name="u", executor="threads")


def test_stopping_ends_the_workers():
    async def endless(symbol, when):
        await asyncio.sleep(60)

    register()
    bk.add_strategy(strategy_name="endless", interval="5m", get_signal=endless)
    bk.add_walker(
        walker_name="v", exchange_name="frame", frame_name="f", strategies=["s0", "endless"]
    )
    first = []
    bk.listen_walker(first.append)

    async def main():
        task = bk.Walker.background("X", walker_name="v", executor="processes")
        while not first:
            await asyncio.sleep(0.05)
        task.stop()
        await asyncio.wait_for(task, PATIENCE)

    asyncio.run(main())
    data = bk.Walker.get_data("X", walker_name="v")
    assert [row.strategy_name for row in data.ranking] == ["s0"]
    assert not data.complete


def test_candles_travel_once():
    """A year of candles is in the shared file, not in what is sent with each trial."""
    sent = []
    source = bk.exchanges.SyntheticExchange(seed=1)
    candles = asyncio.run(source.get_candles("X", "1m", START, 50_000))
    register(bk.exchanges.FrameExchange(candles))

    class Here(ThreadPoolExecutor):
        def submit(self, function, job, strategy, parts):
            sent.append((len(strategy), Path(job.path).stat().st_size))
            return super().submit(function, job, strategy, parts)

    with Here(2) as executor:
        walk(executor)
    assert len(sent) == len(NAMES)
    assert max(strategy for strategy, _ in sent) < 20_000
    assert {shared > 50_000 * 48 for _, shared in sent} == {True}


def test_a_worker_that_gets_other_candles_releases_the_ones_before():
    register()
    engine = current_engine()
    exchange, frame = engine.exchanges.get("frame"), engine.frames.get("f")
    with spool_folder() as first, spool_folder() as second:
        before = read_spool(write_spool(TrialSetup(engine, ("X",), exchange, frame), [], first))
        assert before.symbols == ("X",)
        released = weakref.ref(before.engine)
        del before
        after = read_spool(write_spool(TrialSetup(engine, ("Y",), exchange, frame), [], second))
        assert after.symbols == ("Y",)
        gc.collect()
        assert released() is None
        read_spool.cache_clear()


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: bk.exchanges.ParquetExchange(folder / "x.parquet"),
        lambda folder: bk.exchanges.CsvExchange(folder / "x.csv"),
        lambda folder: bk.exchanges.SyntheticExchange(seed=3),
        pytest.param(
            lambda folder: bk.exchanges.CcxtExchange("binance", timeout=5),
            marks=pytest.mark.skipif(not find_spec("ccxt"), reason="needs the extra ccxt"),
        ),
    ],
)
def test_every_exchange_can_be_sent(make, tmp_path):
    rows = market(2, 500, gaps=False)
    names = ("timestamp", "open", "high", "low", "close", "volume")
    pq.write_table(
        pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), tmp_path / "x.parquet"
    )
    (tmp_path / "x.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    exchange = make(tmp_path)
    if hasattr(exchange, "data_range"):
        exchange.data_range("X")
    again = pickle.loads(pickle.dumps(exchange))
    assert type(again) is type(exchange)
    if isinstance(exchange, bk.exchanges.CcxtExchange):
        assert again._make({}).timeout == 5
        return

    async def read(source):
        return await source.get_candles("X", "5m", START, 20)

    assert asyncio.run(read(again)) == asyncio.run(read(exchange))


@pytest.mark.slow
def test_a_worker_that_is_kept_loads_the_same_candles_once():
    register()
    read_spool.cache_clear()
    misses = []
    with ThreadPoolExecutor(1) as executor:
        for _ in range(2):
            alone = walk()
            assert walk(executor) == alone
            assert walk(executor, "Y") != alone
            assert walk(executor) == walk(executor) == alone
            misses.append(read_spool.cache_info().misses)
            bk.set_config(percent_fee=0.5)
    assert misses == [3, 6]


class BreaksEarly(ThreadPoolExecutor):
    """A pool whose workers die before all has been submitted."""

    def __init__(self, given):
        super().__init__(1)
        self.left = given

    def submit(self, function, *arguments):
        if not self.left:
            raise BrokenProcessPool("a child process terminated abruptly")
        self.left -= 1
        return super().submit(function, *arguments)


@pytest.mark.slow
def test_workers_that_die_while_strategies_are_still_sent_are_replaced(monkeypatch):
    register()
    alone = walk()
    new_pool = PoolRunner._new_pool
    pools = [BreaksEarly(3)]
    monkeypatch.setattr(
        PoolRunner, "_new_pool", lambda self, n: pools.pop() if pools else new_pool(self, n)
    )
    assert walk("processes") == alone
    with BreaksEarly(3) as given:
        contracts = walk(given)[0]
    assert contracts[:3] == alone[0][:3]
    assert len(contracts) == len(alone[0]) > 3
    assert all("give a new one" in contract.error for contract in contracts[3:])
