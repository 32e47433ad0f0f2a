"""Run many symbols for days by a clock that travels, with something wrong every few minutes.

Run as a program of its own, so that its memory and its open files are its own:
    python tests/live/soak.py DAYS SYMBOLS SEED
The exchange hangs, fails, answers with nothing, out of order or late; the clock jumps; the machine
sleeps; the disk is full; processes are stopped and started again. Prints one line of JSON.
"""

import asyncio
import gc
import json
import logging
import random
import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import backtest_kit as bk
from backtest_kit._live import clocks
from backtest_kit._state.files import FileAdapter
from backtest_kit.testing import FaultyExchange, SimulatedTime
from markets import MINUTE, START, market, script

DAY = 1440 * MINUTE
BEGIN = START + 200 * MINUTE
KINDS = ("hang", "fail", "empty", "shuffled", "late")


class Flaky:
    """Files on a disk that is full at times; without threads: this clock does not wait for them."""

    def __init__(self, folder):
        self.files = FileAdapter(folder)
        self.full = False

    async def read(self, kind, key):
        return self.files.read(kind, key)

    async def write(self, kind, key, document):
        if self.full:
            raise OSError(28, "No space left on device")
        self.files.write(kind, key, document)

    async def delete(self, kind, key):
        self.files.delete(kind, key)

    async def list(self, kind):
        return self.files.list(kind)


def faults(rng, end):
    """Something every five minutes or so, for half a minute to four."""
    found, at = [], BEGIN + 10 * MINUTE
    while at < end:
        found.append((at, at + rng.randrange(30_000, 240_000), rng.choice(KINDS)))
        at = found[-1][1] + rng.randrange(60_000, 540_000)
    return found


def memory():
    """Resident memory in MB, and open files."""
    gc.collect()
    status = Path("/proc/self/statm")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 0
    pages = int(status.read_text().split()[1])
    return pages * resource.getpagesize() / 1e6, len([*Path("/proc/self/fd").iterdir()])


UNEVENTFUL = ("idle", "waiting", "active")


class Soak:
    def __init__(self, days, symbols, seed, folder):
        self.rng = random.Random(seed)
        self.end = BEGIN + days * DAY
        self.world = SimulatedTime(BEGIN + 500)
        rows = market(seed, days * 1440 + 300, gaps=False)
        self.faults = faults(self.rng, self.end)
        self.venue = FaultyExchange(self.world, rows, self.faults)
        self.adapter = Flaky(folder)
        self.symbols = [f"S{i}/USDT" for i in range(symbols)]
        self.answers = {name: script(seed + i, 0.2) for i, name in enumerate(self.symbols)}
        # one byte a minute, so that what grows is not the test's own
        self.steps = {name: bytearray(days * 1440 + 60) for name in self.symbols}
        self.asked, self.ended, self.late = {}, {}, set()
        self.doubled = self.late_trades = 0
        self.restarts = 0

    def told(self, tick):
        """Every step tells at least one result; idle, waiting and active are told alone.

        But for the step of an end, at which the strategy is asked again: it may have no answer.
        """
        done = self.steps[tick.symbol]
        i = (tick.timestamp - BEGIN) // MINUTE
        alone = ("waiting", "active") if self.ended.get(tick.symbol) == i else UNEVENTFUL
        self.doubled += done[i] and tick.action in alone
        done[i] = 1
        if tick.action in ("closed", "cancelled"):
            self.ended[tick.symbol] = i
        self.late_trades += tick.action == "opened" and (tick.symbol, tick.timestamp) in self.late

    def get_signal(self, symbol, when):
        at = round(when.timestamp() * 1000)
        if self.world.now + self.world.skew - at >= MINUTE + bk.get_config().step_delay_ms:
            self.late.add((symbol, at))  # the clock has jumped since the step began
        self.doubled += at <= self.asked.get(symbol, 0)
        self.asked[symbol] = at
        return self.answers[symbol](at, bk.average_price(symbol))

    async def days(self):
        """Play; yield memory and open files at the end of each day."""
        bk.set_config(get_candles_retry_delay_ms=1000, get_candles_timeout_ms=20_000)
        bk.use_persist_adapter(self.adapter)
        bk.add_exchange(exchange_name="venue", get_candles=self.venue.get_candles)
        bk.add_risk(risk_name="book", validations=[self.check])
        bk.add_strategy(
            strategy_name="s", interval="5m", get_signal=self.get_signal, risk_name="book"
        )
        bk.listen_signal_live(self.told)
        tasks = [self.start(name) for name in self.symbols]
        measured = []
        next_day = BEGIN + DAY
        while self.world.now < self.end:
            await self.world.until(min(self.world.now + self.rng.randrange(DAY // 6), next_day))
            if self.world.now >= next_day:
                # the world keeps what was asked for its own tests: not the engine's memory
                self.venue.requests.clear()
                measured.append(memory())
                next_day += DAY
                continue
            await self.trouble(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return measured

    async def trouble(self, tasks):
        kind = self.rng.choice(("sleep", "skew", "disk", "restart"))
        if kind == "sleep":
            self.world.start += self.rng.randrange(20) * MINUTE
        elif kind == "skew":
            self.world.skew = self.rng.randrange(-3 * MINUTE, 3 * MINUTE)
            await asyncio.sleep(300)
            self.world.skew = 0
        elif kind == "disk":
            self.adapter.full = True
            await asyncio.sleep(200)
            self.adapter.full = False
        else:
            i = self.rng.randrange(len(tasks))
            tasks[i].cancel()
            await asyncio.gather(tasks[i], return_exceptions=True)
            tasks[i] = self.start(self.symbols[i])
            self.restarts += 1

    def start(self, symbol):
        task = bk.Live.background(symbol, strategy_name="s", exchange_name="venue")

        async def wait():
            await task

        waiting = asyncio.ensure_future(wait())
        waiting.add_done_callback(lambda _: task.cancel())
        return waiting

    @staticmethod
    def check(check):
        if check.active_count >= 15:
            raise ValueError("enough")


def main(days, symbols, seed):
    logging.getLogger("backtest_kit").setLevel(logging.CRITICAL)
    # twenty clocks looked at every second are most of the work in a world without waiting
    clocks._GLANCE_MS = 10_000
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=fast) as folder, bk.Engine():
        soak = Soak(days, symbols, seed, folder)
        measured = soak.world.run(soak.days())
        wrong, missed, errors = [], 0, 0
        for symbol in soak.symbols:
            data = bk.Live.get_data(symbol, strategy_name="s")
            minutes = (data.until - data.since) // MINUTE + 1
            done = sum(soak.steps[symbol])
            missed += data.missed
            errors += data.error_count
            # a step that lives through a missed minute is told as well, so done + missed >= minutes
            if not minutes - data.missed <= done <= minutes:
                wrong.append((symbol, minutes, data.missed, done))
        print(
            json.dumps(
                {
                    "days": days,
                    "symbols": symbols,
                    "minutes": minutes,
                    "faults": len(soak.faults),
                    "restarts": soak.restarts,
                    "missed": missed,
                    "trades": sum(
                        bk.Live.get_data(x, strategy_name="s").statistics.total_signals
                        for x in soak.symbols
                    ),
                    "errors_since_restart": errors,
                    "unaccounted": wrong,
                    "doubled": soak.doubled,
                    "late_trades": soak.late_trades,
                    "memory_mb": [round(mb, 1) for mb, _ in measured],
                    "open_files": [count for _, count in measured],
                }
            )
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
