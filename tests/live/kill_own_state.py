"""Kill a live run whose strategy has a state of its own, as `kill_anywhere` does; compare that too.

Run as a program of its own:
    python tests/live/kill_own_state.py SEED EVERY
The strategy counts its calls, sums what its callbacks are told, and widens its levels after a loss.
"""

import asyncio
import json
import os
import sys

import kill_anywhere  # type: ignore[import-not-found]  # makes tests importable

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START

outcome = kill_anywhere.outcome


def play(seed, folder, doom):
    """Be one process: go on from the state in `folder` to the end of the market."""
    told = os.open(folder / "told", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    say = doom.real["write"]

    def tell(event):
        if isinstance(event, bk.TickIdle | bk.TickWaiting | bk.TickActive):
            return
        doom.step()
        content = kill_anywhere.content(event)
        say(told, json.dumps([event.transition_id, content]).encode() + b"\n")
        doom.step()

    class Adaptive:
        def __init__(self):
            self.calls, self.closes, self.told, self.level = 0, 0, 0.0, 1.0

        def get_signal(self, symbol, when):
            price = bk.average_price(symbol)
            self.calls += 1
            doom.step()
            if self.calls % 3 == 0:
                return None
            side = 1 if (self.calls + len(symbol)) % 2 else -1
            waits = price * (1 - side * 0.001) if self.calls % 2 else None
            base = waits or price
            return bk.Signal(
                position="long" if side > 0 else "short",
                price_open=waits,
                price_take_profit=base * (1 + side * self.level / 100),
                price_stop_loss=base * (1 - side * self.level / 100),
                minute_estimated_time=1 + self.calls % 5,
            )

        async def on_close(self, tick):
            doom.step()
            self.closes += 1
            await asyncio.sleep(0)  # within a callback the state is half changed
            self.told = round(self.told + tick.pnl.pnl_percentage, 9)
            self.level = 2.0 if tick.pnl.pnl_percentage < 0 else 0.5
            doom.step()

        def on_cancel(self, tick):
            self.told += 1000

        def save(self):
            return [self.calls, self.closes, self.told, self.level]

        def load(self, value):
            self.calls, self.closes, self.told, self.level = value

    doom.arm()
    bk.set_config(
        state_dir=str(folder / "state"),
        schedule_await_minutes=3,
        min_take_profit_distance_percent=0,
        min_stop_loss_distance_percent=0,
    )
    bk.add_exchange(
        bk.exchanges.FrameExchange(
            [list(row) for row in kill_anywhere.market(seed, kill_anywhere.MINUTES + 30)]
        )
    )
    bk.add_strategy(strategy_name="s", interval="3m", make=Adaptive, callbacks={"on_tick": tell})
    start = START + 5 * MINUTE
    clock = bk.VirtualClock(to_datetime(start), to_datetime(start + kill_anywhere.MINUTES * MINUTE))

    async def one(symbol):
        async for _ in bk.Live.run(symbol, strategy_name="s", exchange_name="frame", clock=clock):
            doom.step()

    async def both():
        await asyncio.gather(*(one(symbol) for symbol in kill_anywhere.SYMBOLS))

    asyncio.run(both())


def outcome_with_own(folder):
    """Return what `kill_anywhere` compares, and the strategies' own states."""
    journal, living, told = outcome(folder)
    for path in (folder / "state" / "run").glob("*.json"):
        state = json.loads(path.read_bytes().partition(b"\n")[2])["data"]
        calls, closes, _, level = state["own"]
        assert calls > 5, state["own"]
        assert closes > 2
        assert level in (0.5, 2.0)
        assert state["own_sequence"] == state["sequence"]
        living[state["symbol"]] |= {"own": state["own"]}
    return journal, living, told


if __name__ == "__main__":
    kill_anywhere.play = play
    kill_anywhere.outcome = outcome_with_own
    kill_anywhere.main(int(sys.argv[1]), int(sys.argv[2]))
