"""What persons order a live run to do: done once, at the next step, and answered."""

import asyncio

import pytest

import backtest_kit as bk
from backtest_kit._live.stored import stored_runs
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from live.world import BRACKET
from markets import MINUTE, START

NAMES = {"strategy_name": "s", "exchange_name": "frame"}


class Played:
    """A live run on a virtual clock, flat at 100 but for some closes, and commands by minute.

    `others` names strategies that run at the same time.
    """

    others = ()

    def __init__(self, adapter=None, *, closes=None, answers=None, at_end=None, **config):
        self.adapter = MemoryAdapter() if adapter is None else adapter
        self.closes, self.config = closes or {}, config
        self.answers = answers or {}
        self.told, self.errors, self.asked, self.sent = [], [], [], []

    def rows(self):
        found, price = [], 100.0
        for i in range(400):
            close = self.closes.get(i, price)
            found.append(
                [START + i * MINUTE, price, max(price, close), min(price, close), close, 0]
            )
            price = close
        return found

    def run(self, since, until, commands=None):
        """Play minutes `since` to `until`; `commands` are sent after a step, by its minute."""
        asyncio.run(self.play(since, until, commands or {}))
        return self

    async def play(self, since, until, commands):
        due = dict(commands)

        def get_signal(symbol, when):
            minute = round(when.timestamp() * 1000 - START) // MINUTE
            self.asked.append(minute)
            return self.answers.get(minute)

        async def on_tick(tick):
            self.told.append(tick)
            for command in due.pop((tick.timestamp - START) // MINUTE, ()):
                try:
                    self.sent.append(await bk.Live.send("X", **NAMES, **command))
                except bk.BacktestKitError as error:
                    self.sent.append(error)

        with bk.Engine() as engine:
            config = {"exit_trigger": "wick", "avg_price_candles_count": 1, "percent_fee": 0.0}
            engine.set_config(**config, percent_slippage=0.0, **self.config)
            bk.use_persist_adapter(self.adapter)
            bk.add_exchange(bk.exchanges.FrameExchange(self.rows()))
            bk.add_strategy(
                strategy_name="s",
                interval="1m",
                get_signal=get_signal,
                callbacks={"on_tick": on_tick, "on_command": self.told.append},
            )
            bk.listen_error(lambda event: self.errors.append(str(event.error)))
            first, last = (to_datetime(START + m * MINUTE) for m in (since, until))

            async def one(name):
                names, clock = NAMES | {"strategy_name": name}, bk.VirtualClock(first, last)
                async for _ in bk.Live.run("X", **names, clock=clock):
                    pass

            await asyncio.gather(*map(one, ("s", *self.others)))

    def transitions(self):
        return [t for t in self.told if t.action not in ("idle", "active", "waiting")]

    def facts(self):
        """Minute, action, and what came of commands."""
        return [
            (
                (t.timestamp - START) // MINUTE,
                t.action,
                *((t.what, t.outcome) if t.action == "command" else ()),
            )
            for t in self.transitions()
        ]

    def answer(self):
        (found,) = [t for t in self.transitions() if t.action == "command"]
        return found

    def of(self, action):
        (found,) = [t for t in self.transitions() if t.action == action]
        return found


LONG = BRACKET | {"minute_estimated_time": 200}
WAITS = LONG | {"price_open": 95.0}


def close(**more):
    return {"action": "close", **more}


def test_a_close_ends_the_position_at_the_next_step():
    found = Played(answers={10: LONG, 13: LONG}, closes={12: 101.0})
    found.run(5, 30, {12: [close(note="enough")]})
    assert found.facts()[:3] == [
        (10, "opened"),
        (13, "closed"),
        (13, "command", "close", "done"),
    ]
    closed = found.of("closed")
    assert (closed.close_reason, closed.note, closed.pnl.price_close) == ("closed", "enough", 101.0)
    assert closed.legs[-1].reason == "closed"
    answer = found.answer()
    assert answer.command == found.sent[0].id
    assert answer.transition_id == f"frame:s:X:command:{found.sent[0].id}"
    # never asked again at the step of a person's close, though a signal would have been there
    assert 13 not in found.asked
    assert 14 in found.asked
    assert not found.errors


def test_after_a_close_by_hand_an_elapsed_strategy_is_asked_at_the_next_step():
    found = Played(answers={10: LONG}, ask_at="elapsed").run(5, 16, {12: [close()]})
    assert [m for m in found.asked if m > 10] == [14, 15, 16]


def test_parts_entries_and_moves_are_told_with_a_person_as_reason():
    found = Played(answers={10: LONG})
    orders = [
        close(share=50, note="half"),
        {"action": "add", "size": 2.0},
        {"action": "move-stop", "price": 95.0},
        {"action": "move-target", "price": 120.0},
    ]
    found.run(5, 14, {11: orders})
    actions = [t.action for t in found.transitions()]
    assert actions == ["opened"] + [
        name
        for pair in zip(["partial", "added", "moved", "moved"], ["command"] * 4, strict=True)
        for name in pair
    ]
    done = [t for t in found.transitions()[1:] if t.action != "command"]
    assert {t.reason for t in done} == {"user"}
    part, added, stop, target = done
    assert (part.share, part.note, added.size) == (50.0, "half", 2.0)
    assert (stop.what, stop.before, stop.after) == ("stop", 90.0, 95.0)
    assert (target.what, target.before, target.after) == ("target", 110.0, 120.0)
    assert len({t.transition_id for t in found.transitions()}) == 9


def test_moved_levels_act_after_a_restart():
    found = Played(answers={10: LONG}, closes={20: 94.0})
    found.run(5, 14, {11: [{"action": "move-stop", "price": 95.0}]}).run(15, 30)
    closed = found.of("closed")
    assert (closed.timestamp, closed.close_reason) == (START + 21 * MINUTE, "stop_loss")
    assert closed.pnl.price_close == 95.0


def test_a_waiting_signal_is_cancelled():
    found = Played(answers={10: WAITS, 13: WAITS}).run(5, 16, {12: [{"action": "cancel"}]})
    assert found.facts()[:3] == [
        (10, "scheduled"),
        (13, "cancelled"),
        (13, "command", "cancel", "done"),
    ]
    assert found.of("cancelled").reason == "user"
    assert 13 not in found.asked


def test_a_person_opens_a_whole_signal():
    ladder = LONG | {"take_profits": ((1.0, 50.0),)}
    found = Played(closes={20: 102.0})
    found.run(5, 30, {12: [{"action": "open", "signal": ladder}]})
    assert found.facts() == [
        (13, "opened"),
        (13, "command", "open", "done"),
        (21, "partial"),
    ]
    assert 13 not in found.asked


REFUSED = {
    "nothing is open": ({}, close()),
    "no signal waits": ({}, {"action": "cancel"}),
    "cancel it": ({10: WAITS}, close()),
    "close it": ({10: LONG}, {"action": "cancel"}),
    "may only become tighter": ({10: LONG}, {"action": "move-stop", "price": 80.0}),
    "must lie": ({10: LONG}, {"action": "move-target", "price": 99.0}),
    "above 0 and at most 100": ({10: LONG}, close(share=101)),
    "above 0: how many times": ({10: LONG}, {"action": "add", "size": -1.0}),
    "a signal lives already": ({10: LONG}, {"action": "open", "signal": LONG}),
    "price_stop_loss": ({}, {"action": "open", "signal": LONG | {"price_stop_loss": 101.0}}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_allowed_is_refused_with_the_reason(why):
    answers, command = REFUSED[why]
    found = Played(answers=answers).run(5, 14, {12: [command]})
    assert found.answer().outcome == "refused"
    assert why in found.answer().reason
    assert [t.action for t in found.transitions()][-1] == "command"
    assert not found.errors


def test_each_command_is_judged_by_what_those_before_it_left():
    found = Played(answers={10: LONG})
    found.run(5, 14, {11: [close(), close(), {"action": "open", "signal": LONG}, close()]})
    outcomes = [t.outcome for t in found.transitions() if t.action == "command"]
    assert outcomes == ["done", "refused", "done", "done"]
    assert [t.action for t in found.transitions() if t.action != "command"] == [
        *("opened", "closed", "opened", "closed")
    ]
    assert 12 not in found.asked


def test_one_signal_is_opened_at_a_step():
    again = {"action": "open", "signal": LONG}
    found = Played().run(5, 14, {11: [again, close(), again]})
    assert [t.outcome for t in found.transitions() if t.action == "command"][-1] == "refused"


def test_pause_is_kept_over_restarts_and_what_lives_goes_on():
    found = Played(answers={10: LONG, 30: LONG, 50: LONG, 51: LONG}, closes={20: 111.0, 40: 100.0})
    found.run(5, 14, {11: [{"action": "pause"}]})
    found.run(15, 44)
    assert [t.action for t in found.transitions()] == ["opened", "command", "closed"]
    assert max(found.asked) == 10
    (run,) = _stored(found.adapter)
    assert run.state.paused
    found.run(45, 60, {49: [{"action": "open", "signal": LONG}, {"action": "resume"}]})
    assert [t.outcome for t in found.transitions() if t.action == "command"] == [
        *("done", "refused", "done")
    ]
    assert "paused" in [t for t in found.transitions() if t.action == "command"][1].reason
    assert found.facts()[-1] == (50, "opened"), "asked again at the very step of the resume"


def _stored(adapter):
    class Blocking:
        def read(self, kind, key):
            return adapter.documents.get((kind, key))

        def list(self, kind):
            return sorted(key for own, key in adapter.documents if own == kind)

    return stored_runs(Blocking())


def test_a_command_that_is_sent_twice_is_done_once():
    found = Played(answers={10: LONG})
    found.run(5, 20, {m: [close(share=50, command_id="one")] for m in (11, 12, 15)})
    assert [t.action for t in found.transitions()] == ["opened", "partial", "command"]
    assert not [key for kind, key in found.adapter.documents if kind == "command"]


def test_a_command_to_a_run_that_is_not_there_says_so_and_is_not_kept():
    found = Played().run(5, 10)

    async def main():
        with bk.Engine():
            bk.use_persist_adapter(found.adapter)
            with pytest.raises(bk.NotRunningError, match="it has ended, after its step"):
                await bk.Live.send("X", **NAMES, action="pause")
            with pytest.raises(bk.NotRunningError, match="it has never run"):
                await bk.Live.send("Y", **NAMES, action="pause")
            with pytest.raises(bk.UnknownNameError, match="s X frame"):
                await bk.Live.send("Y", strategy_name="s", action="pause")
            assert not [key for kind, key in found.adapter.documents if kind == "command"]
            sent = await bk.Live.send("X", strategy_name="s", action="pause", when_running=True)
            with pytest.raises(bk.NotRunningError, match="waits for it"):
                await bk.Live.answer(sent)
        return sent

    sent = asyncio.run(main())
    found.run(11, 14)
    assert found.answer().command == sent.id
    assert max(found.asked) == 10


def test_a_command_reaches_its_own_run_only():
    found = Played(answers={10: LONG})
    other = {"strategy_name": "another", "exchange_name": "frame", "when_running": True}

    async def main():
        with bk.Engine():
            bk.use_persist_adapter(found.adapter)
            await bk.Live.send("X", **other, action="close")
            await bk.Live.send("X/", **(NAMES | {"when_running": True}), action="close")

    asyncio.run(main())
    found.run(5, 14)
    assert [t.action for t in found.transitions()] == ["opened"]
    assert len([key for kind, key in found.adapter.documents if kind == "command"]) == 2


BAD = {
    "unknown action 'stop'": {"action": "stop"},
    "did you mean 'close'": {"action": "clos"},
    "close has no price": {"action": "close", "price": 1.0},
    "missing required field `price`": {"action": "move-stop"},
    "pause has no note: it takes nothing": {"action": "pause", "note": "x"},
    "nan} has a number that is not finite": {"action": "move-stop", "price": float("nan")},
    "inf} has a number that is not finite": {"action": "close", "share": float("inf")},
    "has a number that is not finite": {
        "action": "open",
        "signal": LONG | {"price_take_profit": float("inf")},
    },
    "missing required field `position`": {"action": "open", "signal": {"price_open": 1.0}},
    "command_id=''": {"action": "pause", "command_id": ""},
}


@pytest.mark.parametrize("why", BAD)
async def test_a_command_that_means_nothing_is_refused_where_it_is_sent(why):
    adapter = MemoryAdapter()
    bk.use_persist_adapter(adapter)
    with pytest.raises(bk.ArgumentError) as raised:
        await bk.Live.send("X", **NAMES, when_running=True, **BAD[why])
    assert why.lower() in str(raised.value).lower()
    assert not adapter.documents


def test_a_damaged_command_is_reported_and_holds_up_nothing():
    found = Played(answers={10: LONG})
    found.adapter.documents["command", "frame/s/X/broken"] = b"?"
    found.run(5, 14, {11: [close()]})
    assert found.answer().outcome == "done"
    assert any("is damaged" in text for text in found.errors)
    assert [key for kind, key in found.adapter.documents if kind == "command.corrupt"]


class FlakyOnce(MemoryAdapter):
    """Fails to store the first close."""

    failed = False

    async def write(self, kind, key, content):
        if kind == "run" and b'"closed"' in bytes(content) and not self.failed:
            self.failed = True
            raise OSError("disk")
        await super().write(kind, key, content)


@pytest.mark.parametrize("adapter", [MemoryAdapter, FlakyOnce])
def test_what_is_opened_at_the_step_of_a_close_keeps_its_risk_slot(adapter, monkeypatch):
    """Another run asks later: it counts the new position, and not the old one."""
    seen = []

    def counts(check):
        if check.strategy_name == "other":
            seen.append([p.opened_at for p in check.active_positions])

    add = bk.add_strategy

    def add_both(**fields):
        bk.add_risk(risk_name="shared", validations=[counts])
        add(**fields, risk_name="shared")

        def get_signal(symbol, when):
            return LONG if round(when.timestamp() * 1000) == START + 20 * MINUTE else None

        add(strategy_name="other", interval="1m", get_signal=get_signal, risk_name="shared")

    monkeypatch.setattr(bk, "add_strategy", add_both)
    found = Played(adapter(), answers={10: LONG})
    found.others = ("other",)
    found.run(5, 30, {12: [close(), {"action": "open", "signal": LONG}]})
    opened = [t.timestamp for t in found.transitions() if t.action == "opened"]
    assert len(opened) == 2
    assert seen == [[opened[1]]]


def test_an_id_is_that_of_one_command():
    found = Played(answers={10: LONG})
    moves = {"action": "move-stop", "price": 95.0, "command_id": "x"}
    half = close(share=50, command_id="x")

    async def wait(sent):
        with bk.Engine():
            bk.use_persist_adapter(found.adapter)
            return await bk.Live.answer(sent)

    found.run(5, 20, {12: [half, moves, close(command_id="x"), half], 14: [moves]})
    assert [t.action for t in found.transitions()] == ["opened", "partial", "command"]
    first, *others, again, late = found.sent
    assert [type(other) for other in others] == [bk.ArgumentError] * 2
    assert "is that of another command, which waits: close" in str(others[0])
    assert again.order == first.order
    assert asyncio.run(wait(again)).outcome == "done"
    with pytest.raises(bk.ArgumentError, match="was that of another command, close"):
        asyncio.run(wait(late))


@pytest.mark.parametrize("keep", [False, True])
def test_a_command_that_an_ended_run_never_read_is_done_later_only_if_it_was_to_be_kept(keep):
    found = Played()
    order = {"action": "open", "signal": LONG, "when_running": keep}
    found.run(5, 12, {12: [order]}).run(300, 305)
    outcome = "done" if keep else "refused"
    assert found.facts()[-1] == (300, "command", "open", outcome)
    assert keep or "had ended before it read this" in found.answer().reason
    assert not [key for kind, key in found.adapter.documents if kind == "command"]
