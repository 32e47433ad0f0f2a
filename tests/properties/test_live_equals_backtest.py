"""Live on a virtual clock gives the trades of a backtest, also when it is killed and restarted."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit.testing import MemoryAdapter
from effort import examples
from markets import MINUTE, START, cases, market, script

TRANSITIONS = (
    "on_open",
    "on_schedule",
    "on_cancel",
    "on_close",
    "on_partial_profit",
    "on_partial_loss",
)


class Killed(BaseException):
    """The process is gone: nothing after this point happens."""


class Mortal(MemoryAdapter):
    """An adapter whose process dies at its n-th write, before or after it takes effect."""

    def __init__(self, documents, lives=None):
        super().__init__(documents)
        self.lives = lives

    def _breathe(self):
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise Killed

    async def write(self, kind, key, document):
        self._breathe()
        await super().write(kind, key, document)
        self._breathe()


class Process:
    """One process: a fresh engine on the state that earlier ones left."""

    def __init__(self, case, rows, documents, *, lives=None, symbols=("X",), risk=None):
        self.case, self.rows, self.symbols, self.risk = case, rows, symbols, risk
        self.adapter = Mortal(documents, lives)
        self.told = []

    def run(self, since, until):
        """Play from `since` to `until`; say whether that was survived."""
        with bk.Engine() as engine:
            engine.set_config(**self.case.config)
            self._register()
            try:
                asyncio.run(self._play(bk.VirtualClock(to_datetime(since), to_datetime(until))))
            except Killed:
                return False
            kinds = {
                kind
                for record in engine.records.select(mode="live")
                for kind in record.error_kinds
                if "SignalError" not in kind[1] and "DataRange" not in kind[1]
            }
            assert not kinds
            return True

    def _register(self):
        bk.use_persist_adapter(self.adapter)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in self.rows]))
        proposals = {
            symbol: script(self.case.seed + i, self.case.ask_rate, self.case.coarse)
            for i, symbol in enumerate(self.symbols)
        }

        def get_signal(symbol, when):
            return proposals[symbol](int(when.timestamp() * 1000), bk.average_price(symbol))

        if self.risk is not None:
            bk.add_risk(risk_name="book", validations=[self.risk])
        bk.add_strategy(
            strategy_name="s",
            interval=self.case.interval,
            get_signal=get_signal,
            risk_name=None if self.risk is None else "book",
            callbacks=dict.fromkeys(
                (
                    "on_open",
                    "on_schedule",
                    "on_cancel",
                    "on_close",
                    "on_partial_profit",
                    "on_partial_loss",
                ),
                self.told.append,
            ),
        )

    async def _play(self, clock):
        async def one(symbol):
            yielded = [
                tick
                async for tick in bk.Live.run(
                    symbol, strategy_name="s", exchange_name="frame", clock=clock
                )
            ]
            mine = [t for t in self.told if t.symbol == symbol]
            assert yielded == [
                t for t in mine if isinstance(t, bk.TickOpened | bk.TickClosed | bk.TickCancelled)
            ]

        await asyncio.gather(*(one(symbol) for symbol in self.symbols))


def facts(told):
    """The transitions as the reference writes them, each once."""
    found = {}
    for x in told:
        if isinstance(x, bk.PartialEvent):
            fact = ("partial", x.timestamp, x.level)
        elif x.action == "closed":
            fact = (
                "closed",
                x.close_timestamp,
                x.close_reason,
                x.pnl.price_close,
                x.pnl.pnl_percentage,
                x.ambiguous,
            )
        elif x.action == "cancelled":
            fact = ("cancelled", x.timestamp, x.reason)
        else:
            fact = (x.action, x.timestamp, x.signal.price_open)
        assert found.setdefault(x.transition_id, fact) == fact, "told again with another content"
    return [*found.values()]


def end_of(case):
    return START + case.minutes * 3 // 4 * MINUTE


def expected(case, rows):
    """What the slow reference finds up to the end of the clock."""
    found = reference.backtest(
        rows,
        START,
        end_of(case),
        MINUTE,
        INTERVALS[case.interval],
        script(case.seed, case.ask_rate, case.coarse),
        case.config,
        live=True,
    )
    return [fact for fact in found if fact[1] <= end_of(case)]


@given(cases)
def test_live_on_a_virtual_clock_equals_the_reference(case):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    process = Process(case, rows, {})
    assert process.run(START, end_of(case))
    assert facts(process.told) == expected(case, rows)


@given(cases, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_restarts_between_steps_change_nothing(case, cuts):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    total = case.minutes * 3 // 4
    marks = sorted({START + int(cut * total) * MINUTE for cut in cuts} | {end_of(case)})
    documents, told, since = {}, [], START
    for mark in marks:
        process = Process(case, rows, documents)
        assert process.run(since, mark)
        told += process.told
        since = mark + MINUTE
    assert facts(told) == expected(case, rows)
    assert len(told) == len(facts(told)), "an orderly end tells nothing twice"


@pytest.mark.slow
@given(cases, st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_kills_at_any_write_lose_and_double_nothing(case, deaths):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    documents, told = {}, []
    for lives in [*deaths, None]:
        process = Process(case, rows, documents, lives=lives)
        survived = process.run(START, end_of(case))
        told += process.told
        if survived:
            break
    assert survived
    assert facts(told) == expected(case, rows)


def one_at_a_time(check):
    if check.active_count:
        return "there is one already"
    return None


def backtest_of_two(case, rows):
    """The same strategies as backtests side by side, cut where the clock ends."""
    process = Process(case, rows, {}, symbols=("X", "Y"), risk=one_at_a_time)
    with bk.Engine() as engine:
        engine.set_config(**case.config)
        process._register()
        # without a limit to lives, a backtest's data end with its frame, and those of live don't
        goes_on = not case.config["max_signal_lifetime_minutes"]
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=to_datetime(START),
            end_date=to_datetime(START + case.minutes * MINUTE if goes_on else end_of(case)),
        )

        async def work():
            tasks = [
                bk.Backtest.background(
                    symbol, strategy_name="s", exchange_name="frame", frame_name="f"
                )
                for symbol in process.symbols
            ]
            for task in tasks:
                await task

        asyncio.run(work())
    return facts_by_symbol(process.told, end_of(case))


def facts_by_symbol(told, until):
    return {
        symbol: [f for f in facts(t for t in told if t.symbol == symbol) if f[1] <= until]
        for symbol in ("X", "Y")
    }


@pytest.mark.slow
@examples(20)
@given(cases, st.lists(st.integers(0, 60), max_size=4))
def test_runs_that_share_a_risk_profile_equal_backtests_that_do(case, deaths):
    if INTERVALS[case.interval] > 60 * MINUTE:  # or the frame may not meet a single close
        case = case._replace(interval="15m")
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    documents, told = {}, []
    for lives in [*deaths, None]:
        process = Process(
            case, rows, documents, lives=lives, symbols=("X", "Y"), risk=one_at_a_time
        )
        survived = process.run(START, end_of(case))
        told += process.told
        if survived:
            break
    assert facts_by_symbol(told, end_of(case)) == backtest_of_two(case, rows)


def test_a_killed_adapter_stays_dead():
    adapter = Mortal({}, 0)
    for _ in range(2):
        with pytest.raises(Killed):
            asyncio.run(adapter.write("run", "x", b""))
    assert not adapter.documents
