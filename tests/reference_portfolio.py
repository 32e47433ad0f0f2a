"""Several runs on one account, minute by minute, written from the specification.

Positions are those of `reference_positions`, paid by the exact books of `accounts`. What one would
do is found by doing it on a copy.
"""

import copy
import math
from fractions import Fraction

import reference
from accounts import HAIR, Reference, steps_in
from reference import MINUTE, average, fill_gaps, is_valid, scheduled
from reference_positions import Position

LEVELS = ("take_profits", "stop_losses", "entries")


class Account(Reference):
    """The books with what they count; `schema` and `markets` (by symbol) are plain mappings."""

    def __init__(self, schema, config, markets):
        super().__init__(
            schema["balance"],
            schema["leverage"],
            schema["maintenance_percent"],
            config["percent_fee"],
            config["percent_slippage"],
        )
        self.schema, self.markets = schema, markets
        self.fills, self.refused, self.skipped, self.percents = [], [], [], {}
        # what `manage` was shown, in order, and which of its actions were not allowed
        self.shown, self.wrong = [], []
        self.E = self.balance

    def needed(self, cost):
        return cost / self.leverage + self.f * cost

    def is_beyond(self, stop, side, entry):
        """Whether a stop would lie at or beyond the liquidation price."""
        if stop is None:
            return False
        level = self.level(side, entry)
        x = Fraction(stop)
        return level > 0 and (x <= level * (1 + HAIR) if side > 0 else x >= level * (1 - HAIR))

    def level(self, side, entry):
        mm = self.maintenance_percent / 100
        return entry * (1 - side / self.leverage) / (1 - side * mm)

    def too_small(self, symbol, quantity, paid):
        rules = self.markets.get(symbol, {})
        least, notional = rules.get("min_quantity") or 0, rules.get("min_notional") or 0
        return (
            quantity <= 0
            or quantity < Fraction(least) * (1 - HAIR)
            or Fraction(quantity) * paid < Fraction(notional) * (1 - HAIR)
        )

    def step(self, symbol):
        return self.markets.get(symbol, {}).get("quantity_step")

    def size(self, run, sig, side, runs):
        """Return the quantity of a first entry, or why there is none."""
        paid = self.slip(sig["entry"], side > 0)
        if self.is_beyond(sig["price_stop_loss"], side, paid):
            return "liquidation", None
        dust = HAIR * self.balance
        if dust >= self.E:
            return "cash", None
        sizing = self.schema["sizings"].get(run[0])
        if sig.get("cost"):
            cost = Fraction(sig["cost"])
        elif sig.get("quantity"):
            cost = Fraction(sig["quantity"]) * paid
        elif sizing is None:
            percent = self.schema["default_percent"]
            cost = (
                self.E / runs / (1 / self.leverage + self.f)
                if percent is None
                else self.E * Fraction(percent) / 100
            )
        elif sizing["method"] == "equity-percentage":
            cost = self.E * Fraction(sizing["equity_percentage"]) / 100
        else:
            if sig["price_stop_loss"] is None:
                return "size", None
            distance = abs(Fraction(sig["entry"]) - Fraction(sig["price_stop_loss"]))
            cost = self.E * Fraction(sizing["risk_percentage"]) / 100 / distance * paid
        if cost <= 0:
            return "size", None
        reduced = self.needed(cost) * (1 - HAIR) > self.free
        if reduced:
            if self.schema["on_cash_shortage"] == "refuse" or self.free <= dust:
                return "cash", None
            cost = self.free / (1 / self.leverage + self.f)
        quantity = steps_in(float(cost / paid), self.step(run[1]))
        if self.too_small(run[1], quantity, paid):
            return "cash" if reduced else "minimum", None
        return None, quantity


class Paid(Position):
    """A position of an account."""

    def __init__(self, sig, t, first, p, config, account, run, quantity):
        super().__init__(sig, t, first, p, config)
        self.account, self.run, self.unit = account, run, quantity
        account.enter(run, self.s, quantity, first)
        self.first_cost = account.open[run].K
        account.fills.append((t, run, self.s, quantity, first))
        if self.stop is None:
            self.stop_by = "liquidation"
            self.liquidate_there()

    def liquidate_there(self):
        level = self.account.liquidation(self.account.open[self.run])
        if level > 0:
            self.stop = float(level)

    def fall(self, t, to, o, p, market, *, marked):
        """As it is, but that an entry may move the stop."""
        bound, passed = o if self.wick else market, []
        while not self.over:
            found = [(kind, x) for kind, x in self.below(to) if x is None or x not in passed]
            if not found:
                return
            kind, level = found[0]
            if kind == "stop":
                self.close(t, self.lower(self.stop, bound), self.stop_by, marked)
            elif kind == "loss":
                self.part(t, level, self.lower(level["price"], bound), marked)
            elif self.wick:
                self.add(t, level, level["price"], level["price"], marked)
            else:
                under = self.stop is not None and self.at_or_below(market, self.stop)
                over = self.target is not None and self.at_or_below(self.target, market)
                if under or over:
                    passed.append(level)
                else:
                    self.add(t, level, self.upper(level["price"], market), p, marked)

    def enter(self, t, size, price, begin, reason, marked):
        """Enter what the account pays, or nothing."""
        account, symbol = self.account, self.run[1]
        cost = Fraction(size) * self.first_cost
        paid = account.slip(price, self.s > 0)
        held = account.open[self.run]
        entry = (held.K + cost) / (held.Q + cost / paid)
        quantity = steps_in(float(cost / paid), account.step(symbol))
        why = None
        if self.stop_by != "liquidation" and account.is_beyond(self.stop, self.s, entry):
            why = "liquidation"
        elif account.needed(cost) * (1 - HAIR) > account.free:
            why = "cash"
        elif account.too_small(symbol, quantity, paid):
            why = "minimum"
        if why is not None:
            account.skipped.append((t, self.run, why))
            return
        if account.step(symbol) is not None:
            size = quantity * price / (self.unit * self.first)
        super().enter(t, size, price, begin, reason, marked)
        account.enter(self.run, self.s, quantity, price)
        account.fills.append((t, self.run, self.s, quantity, price))
        if self.stop_by == "liquidation":
            self.liquidate_there()

    def part(self, t, level, price, marked):
        quantity = level["amount"] / 100 * self.entered
        whole = level["all"] or self.held - quantity < 1e-9 * self.entered
        if not whole:
            quantity = self.closable(t, quantity)
            if not quantity:
                self.levels.remove(level)
                return
            share = quantity / self.entered * 100
            self.levels[self.levels.index(level)] = level = dict(level, amount=share)
        super().part(t, level, price, marked)

    def closable(self, t, quantity):
        step = self.account.step(self.run[1])
        if step is None:
            return quantity
        rounded = steps_in(quantity * self.unit, step)
        if rounded <= 0:
            self.account.skipped.append((t, self.run, "minimum"))
            return 0.0
        return rounded / self.unit

    def do_stop(self, t, p, market, price):
        if self.stop_by == "liquidation" and self.stop is not None and math.isfinite(price):
            level = self.account.liquidation(self.account.open[self.run])
            if abs(Fraction(price) - level) <= HAIR * level:
                return True  # where it is
        return super().do_stop(t, p, market, price)

    def is_barred(self, t, price):
        held = self.account.open[self.run]
        barred = self.account.is_beyond(price, self.s, held.K / held.Q)
        if barred:
            self.account.skipped.append((t, self.run, "liquidation"))
        return barred

    def exit(self, t, price, quantity, reason, marked):
        everything = quantity == self.held
        amount = quantity * self.unit
        if self.account.step(self.run[1]) is not None:
            amount = steps_in(amount * (1 + 1e-10), self.account.step(self.run[1]))
        if everything:
            amount = float(self.account.open[self.run].Q)
        self.account.close(self.run, amount, price, everything=everything)
        self.account.fills.append((t, self.run, self.s, -amount, price))
        super().exit(t, price, quantity, reason, marked)

    @property
    def left(self):
        """How many levels have not acted, of exits and of entries."""
        entries = sum(level["kind"] == "entry" for level in self.levels)
        return len(self.levels) - entries, entries


class Run:
    """One run: its market, its script, what lives of it, and what was told."""

    def __init__(self, name, rows, script, config, account, manage=None, manage_interval=MINUTE):
        self.name, self.config, self.account = name, config, account
        self.rows = fill_gaps(rows)
        self.script, self.manage, self.manage_interval = script, manage, manage_interval
        self.sig = self.position = None
        self.last_call = self.last_close = None
        self.out = []
        self.done = self.reverses = False
        self.asked_at = self.answer = None

    def look(self, k):
        self.t = self.rows[k][0] + MINUTE
        count = self.config["avg_price_candles_count"]
        self.known = k + 1 >= count
        self.row, self.close_price = self.rows[k], self.rows[k][4]
        if self.known:
            self.p = average(self.rows[: k + 1], count)
            self.m = self.close_price if self.config["fill_price"] == "market" else self.p

    def step(self, ends):
        """The whole step of an open position; `ends`: the last of the data."""
        self.candle()
        if self.is_due:
            self.ask_manage()
            self.act()
        if ends and self.position is not None:
            self.position.close(self.t, self.m, "end_of_data", marked=False)
            self.tell()

    def candle(self):
        over = self.position.expired(self.t)
        self.position.step(self.t, self.p, self.m, self.row, expired=over)
        self.tell()

    @property
    def is_due(self):
        """Whether `manage` is asked at this step of a position."""
        if self.position is None or self.manage is None or self.is_last:
            return False
        if self.config["ask_at"] == "close":
            return self.t % self.manage_interval == 0
        return self.asked_at is None or self.t - self.asked_at >= self.manage_interval

    def ask_manage(self):
        self.asked_at = self.t
        seen = self.position.seen(self.t, self.p, self.close_price)
        self.account.shown.append((self.t, self.name, seen))
        self.answer = self.manage(self.t, seen)
        if ("nonsense", "raises") in self.answer:  # told when it is asked
            self.answer = []
            self.account.wrong.append((self.t, self.name))

    def act(self):
        """Do what `manage` has answered, in order."""
        position = self.position
        for what, value in self.answer:
            if not position.act(self.t, self.p, self.m, what, value):
                self.account.wrong.append((self.t, self.name))
        self.answer = None
        self.tell()
        self.reverses = position.over

    def tell(self):
        told, self.position.told = self.position.told, []
        self.out += [fact for fact in told if fact[0] in ("closed", "added", "part")]
        if self.position.over:
            self.sig = self.position = self.asked_at = None
            self.last_close, self.reverses = self.t, False

    def candle_brings(self):
        """Whether the candle of an open position closes anything, and enters; done on a copy."""
        account = copy.copy(self.account)
        account.open = copy.deepcopy(account.open)
        account.fills, account.skipped = [], []
        position = copy.copy(self.position)
        position.account, position.levels = account, [*position.levels]
        position.legs, position.told = [*position.legs], []
        over = position.expired(self.t)
        position.step(self.t, self.p, self.m, self.row, expired=over)
        (exits, entries), (exits_before, entries_before) = position.left, self.position.left
        return position.over or exits != exits_before, entries != entries_before

    def first_turn(self, ends):
        """What an open position does before equity is taken; return what is left to do later."""
        closes, enters = self.candle_brings()
        if ends or closes:
            self.step(ends)
            return None
        if enters:
            return lambda: self.step(ends)
        self.candle()
        if not self.is_due:
            return None
        self.ask_manage()
        if any(what == "close" for what, _ in self.answer):
            return self.act()
        return self.act

    def open(self, runs, *, waited):
        """Fill what is in `sig`; return why not."""
        why, quantity = self.account.size(self.name, self.sig, 1 if self.is_long else -1, runs)
        if why is not None:
            self.account.refused.append((self.t, self.name, why))
            return why
        self.out.append(("opened", self.t, self.sig["entry"]))
        self.position = Paid(
            self.sig, self.t, self.sig["entry"], self.p, self.config,
            self.account, self.name, quantity,
        )  # fmt: skip
        self.position.opening(self.t, self.p, self.m, self.row, waited=waited)
        self.tell()
        return None

    @property
    def is_long(self):
        return self.sig["position"] == "long"

    def wait(self, runs, ends):
        """The step of a waiting signal."""
        turn = scheduled(self.sig, self.t, self.p, self.m, self.row, self.config)
        if turn is None:
            why = "end_of_data" if ends else None
        elif turn[0] in ("timeout", "price_reject"):
            why = turn[0]
        else:
            self.sig |= {"pending_at": self.t, "entry": turn[1]}
            why = self.open(runs, waited=True)
        if why is not None:
            self.out.append(("cancelled", self.t, why))
            self.sig, self.last_close, self.reverses = None, self.t, False

    def ask(self, frame, runs):
        start, end, frame_step, interval = frame
        at_close, t = self.config["ask_at"] == "close", self.t
        if self.sig is not None or self.done:
            return
        if t > end or (self.config["max_signal_lifetime_minutes"] == 0 and t == end):
            self.done = True
            return
        if (t - start) % frame_step or (
            self.last_close == t and not at_close and not self.reverses
        ):
            return
        if (
            t % interval
            if at_close
            else (self.last_call is not None and t - self.last_call < interval)
        ):
            return
        self.last_call = t
        proposal = self.script(t, self.p)
        if proposal is None or not is_valid(proposal, self.p, self.m, self.config):
            return
        entry, long = proposal.get("price_open"), proposal["position"] == "long"
        now = entry is None or (self.m <= entry if long else self.m >= entry)
        self.sig = dict(proposal, scheduled_at=t, pending_at=t if now else None)
        self.sig["entry"] = self.m if now else entry
        if now:
            if self.open(runs, waited=False) is not None:
                self.sig = None
            return
        side = 1 if long else -1
        paid = self.account.slip(entry, long)
        if self.account.is_beyond(self.sig["price_stop_loss"], side, paid):
            self.account.refused.append((t, self.name, "liquidation"))
            self.sig = None
        else:
            self.out.append(("scheduled", t, entry))


def portfolio(markets, scripts, names, frame, schema, config, rules, manages=None):
    """Return the runs after all that happens, and their account.

    `markets` are rows by symbol, all of one length, `scripts` by strategy and symbol; `names` are
    (strategy, symbol) in order, `frame` is (start, end, step, interval), in milliseconds.
    `manages` says of some of them what `manage(t, seen)` and its interval are.
    """
    account = Account(schema, config, rules)
    manages = manages or {}
    runs = [Run(n, markets[n[1]], scripts[n], config, account, *manages.get(n, ())) for n in names]
    length = len(runs[0].rows)
    if config["max_signal_lifetime_minutes"] == 0:
        length = sum(row[0] + MINUTE <= frame[1] for row in runs[0].rows)
    equities = []
    for k in range(length):
        for run in runs:
            run.look(k)
            run.is_last = config["max_signal_lifetime_minutes"] == 0 and run.t == frame[1]
        if not all(run.known for run in runs) or runs[0].t < frame[0]:
            continue
        ends = k == length - 1
        marks = {run.name: run.close_price for run in runs}
        lived = [run for run in runs if run.position is not None]
        waited = {run.name for run in runs if run.sig is not None and run.position is None}
        later = [run.first_turn(ends) for run in lived]
        account.E = account.equity(marks)
        for rest in later:
            if rest is not None:
                rest()
        for run in runs:
            if run.name in waited:
                run.wait(len(runs), ends)
        for run in runs:
            run.ask(frame, len(runs))
        for run in runs:
            if ends and run.position is not None:
                run.position.close(run.t, run.m, "end_of_data", marked=False)
                run.tell()
        equities.append((runs[0].t, account.equity(marks)))
    return runs, account, equities


__all__ = ["portfolio", "reference"]
