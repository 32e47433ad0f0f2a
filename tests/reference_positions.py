"""Managed positions once more: slow, obvious, a candle at a time, from the specification.

Part of the oracle of the property tests (`reference`). It shares no code with the engine.
"""

import math

REASONS = {"profit": "take_profit_level", "loss": "stop_loss_level"}
CLOSES = {"profit": "take_profit", "loss": "stop_loss"}


def is_managed(sig):
    names = ("trailing_stop", "breakeven_percent", "take_profits", "stop_losses", "entries")
    return any(sig.get(name) for name in names)


def is_valid(sig, entry, config):
    """Whether the management of a proposal is valid, measured from `entry`."""
    s = 1 if sig["position"] == "long" else -1
    target, stop = sig["price_take_profit"], sig["price_stop_loss"]
    hair = 1e-12
    trailing = sig.get("trailing_stop")
    if trailing is not None and not (0 < trailing[0] < 100 and 0 <= trailing[1] < 100):
        return False
    x = sig.get("breakeven_percent")
    if x is not None:
        if not 0 < x < 100:
            return False
        beyond, zero = entry * (1 + s * x / 100), break_even(entry, s, config)
        if not (beyond > zero if s > 0 else beyond < zero):
            return False
    for name, way, bound, least in (
        ("take_profits", s, target, config["min_take_profit_distance_percent"]),
        ("stop_losses", -s, stop, config["min_stop_loss_distance_percent"]),
        ("entries", -s, stop, 0.0),
    ):
        levels = sig.get(name, ())
        percents = [percent for percent, _ in levels]
        if percents != sorted(set(percents)):
            return False
        for percent, amount in levels:
            price = entry * (1 + way * percent / 100)
            if not (0 < percent < math.inf and 0 < amount < math.inf and 0 < price < math.inf):
                return False
            if bound is not None and not (price < bound if way > 0 else price > bound):
                return False
            if percent < least * (1 - hair):
                return False
        if name != "entries" and sum(share for _, share in levels) > 100 * (1 + hair):
            return False
    return len(sig.get("entries", ())) <= config.get("max_entries", 8)


def break_even(entry, s, config):
    slip, fee = config["percent_slippage"] / 100, config["percent_fee"] / 100
    return entry * (1 + s * slip) * (1 + s * 2 * fee) / (1 - s * slip)


class Position:
    """One managed position; `told` is what is told of it, in order, the last thing the close."""

    def __init__(self, sig, t, first, p, config):
        self.sig, self.config = sig, config
        self.s = 1 if sig["position"] == "long" else -1
        self.wick = config["exit_trigger"] == "wick"
        self.first = self.entry = first
        self.held = self.entered = self.cost = 1.0
        self.got = 0.0
        self.target, self.stop = sig["price_take_profit"], sig["price_stop_loss"]
        self.stop_by = "stop_loss"
        self.best = first if self.wick else p
        self.levels = []
        for kind, name, way in (
            ("entry", "entries", -self.s),
            ("loss", "stop_losses", -self.s),
            ("profit", "take_profits", self.s),
        ):
            for i, (percent, amount) in enumerate(sig.get(name, ())):
                whole = kind != "entry" and sum(x for _, x in sig[name]) >= 100 * (1 - 1e-12)
                last = i + 1 == len(sig[name])
                self.levels.append(
                    {
                        "kind": kind,
                        "price": first * (1 + way * percent / 100),
                        "amount": amount,
                        "all": whole and last,
                        "number": i,
                    }
                )
        self.legs = [("entry", t, first, 1.0, 1.0, "signal", False)]
        self.told = []
        self.over = False

    # what is worse and better by side
    def at_or_below(self, a, b):
        return a <= b if self.s > 0 else a >= b

    def lower(self, a, b):
        return min(a, b) if self.s > 0 else max(a, b)

    def upper(self, a, b):
        return max(a, b) if self.s > 0 else min(a, b)

    def opening(self, t, p, market, row, *, waited):
        """The step of the first entry, after the fill."""
        if waited and self.wick:
            _, o, h, low, _, _ = row
            self.fall(t, low if self.s > 0 else h, o, p, market, marked=False)
        if not self.over:
            self.move_stop(t, p)

    def step(self, t, p, market, row, *, expired):
        """A later step: the candle, then what follows from the best price."""
        entries = sum(leg[0] == "entry" for leg in self.legs)
        if not self.wick:
            if expired:
                self.close(t, market, "time_expired", False)
                return
            row = (row[0], p, p, p, p, 0.0)
        _, o, h, low, _, _ = row
        if self.stop is not None and self.at_or_below(o, self.stop):
            price = o if self.wick else self.lower(self.stop, market)
            self.close(t, price, self.stop_by, False)
            return
        bottom, top = (low, h) if self.s > 0 else (h, low)
        self.fall(t, o, o, p, market, marked=False)
        self.rise(t, o, market, marked=False)
        if not self.over and self.wick:
            down, up = self.below(bottom), self.above(top)
            kinds = {kind for kind, _ in down}
            costly = "stop" in kinds or kinds == {"loss"}
            if self.config["ambiguous_candle"] == "stop_loss_first":
                falls_first = costly
            else:
                falls_first = not costly
            marked = bool(down) and bool(up)
            for falls in (falls_first, not falls_first):
                if falls:
                    self.fall(t, bottom, o, p, market, marked=marked)
                else:
                    self.rise(t, top, market, marked=marked)
            if expired and not self.over:
                self.close(t, market, "time_expired", False)
        if self.over:
            return
        if entries == sum(leg[0] == "entry" for leg in self.legs):
            self.best = self.upper(self.best, top)
        self.move_stop(t, p)

    def below(self, to):
        """What a fall to `to` reaches, nearest first: levels before the stop, then the stop."""
        found = []
        for kind in ("entry", "loss"):
            for level in self.levels:
                price = level["price"]
                before = self.stop is None or not self.at_or_below(price, self.stop)
                if level["kind"] == kind and self.at_or_below(to, price) and before:
                    found.append((kind, level))
        found.sort(key=lambda x: -self.s * x[1]["price"])  # stable: entries first
        if self.stop is not None and self.at_or_below(to, self.stop):
            found.append(("stop", None))
        return found

    def above(self, to):
        found = []
        for level in self.levels:
            price = level["price"]
            before = self.target is None or not self.at_or_below(self.target, price)
            if level["kind"] == "profit" and self.at_or_below(price, to) and before:
                found.append(("profit", level))
        found.sort(key=lambda x: self.s * x[1]["price"])
        if self.target is not None and self.at_or_below(self.target, to):
            found.append(("target", None))
        return found

    def fall(self, t, to, o, p, market, *, marked):
        if self.over:
            return
        bound = o if self.wick else market
        for kind, level in self.below(to):
            if kind == "stop":
                self.close(t, self.lower(self.stop, bound), self.stop_by, marked)
            elif kind == "loss":
                self.part(t, level, self.lower(level["price"], bound), marked)
            elif self.wick:
                self.add(t, level, level["price"], level["price"], marked)
            else:
                under = self.stop is not None and self.at_or_below(market, self.stop)
                over = self.target is not None and self.at_or_below(self.target, market)
                if not under and not over:
                    self.add(t, level, self.upper(level["price"], market), p, marked)
            if self.over:
                return

    def rise(self, t, to, market, *, marked):
        if self.over:
            return
        for kind, level in self.above(to):
            price = self.target if kind == "target" else level["price"]
            price = price if self.wick else self.lower(price, market)
            if kind == "target":
                self.close(t, price, "take_profit", marked)
            else:
                self.part(t, level, price, marked)
            if self.over:
                return

    def add(self, t, level, price, begin, marked):
        self.levels.remove(level)
        size = level["amount"]
        quantity = size * self.first / price
        self.entry = (self.entry * self.held + size * self.first) / (self.held + quantity)
        self.held += quantity
        self.entered += quantity
        self.cost += size
        self.best = begin
        self.legs.append(("entry", t, price, quantity, size, "entry_level", marked))
        self.told.append(("added", t, price, size, self.entry, "entry_level", marked))

    def part(self, t, level, price, marked):
        self.levels.remove(level)
        quantity = level["amount"] / 100 * self.entered
        if level["all"] or self.held - quantity < 1e-9 * self.entered:
            self.close(t, price, CLOSES[level["kind"]], marked)
            return
        reason = REASONS[level["kind"]]
        share = quantity / self.entered * 100
        self.told.append(("part", t, price, share, reason, marked))
        self.exit(t, price, quantity, reason, marked)

    def exit(self, t, price, quantity, reason, marked):
        cost = quantity * self.entry / self.first
        self.legs.append(("exit", t, price, quantity, cost, reason, marked))
        self.got += quantity * price
        self.held -= quantity

    def close(self, t, price, reason, marked):
        self.exit(t, price, self.held, reason, marked)
        self.over = True
        paid, got = self.cost * self.first / self.entered, self.got / self.entered
        s, f = self.config["percent_slippage"] / 100, self.config["percent_fee"]
        if self.s > 0:
            a, b = paid * (1 + s), got * (1 - s)
            profit = (b - a) / a * 100 - 2 * f
        else:
            a, b = paid * (1 - s), got * (1 + s)
            profit = (a - b) / a * 100 - 2 * f
        if self.sig.get("breakeven_percent") and abs(profit) <= 1e-9:
            profit = 0.0
        ambiguous = any(leg[6] for leg in self.legs)
        legs = tuple(
            (kind, at, fill, quantity, cost / self.cost * 100, why, unsure)
            for kind, at, fill, quantity, cost, why, unsure in self.legs
        )
        self.told.append(("closed", t, reason, got, profit, ambiguous, paid, self.cost, legs))

    def move_stop(self, t, p):
        best, entry, s = self.best, self.entry, self.s
        wanted = []
        trailing = self.sig.get("trailing_stop")
        if trailing:
            percent, activate = trailing
            if activate == 0 or self.at_or_below(entry * (1 + s * activate / 100), best):
                wanted.append((best * (1 - s * percent / 100), "trailing"))
        x = self.sig.get("breakeven_percent")
        if x and self.at_or_below(entry * (1 + s * x / 100), best):
            wanted.append((break_even(entry, s, self.config), "breakeven"))
        before, after = self.stop, self.stop
        for price, why in wanted:
            if after is None or not self.at_or_below(price, after):
                after, by = price, why
        if after != before:
            self.told.append(("moved", t, before, after, by))
            self.stop, self.stop_by = after, "trailing_stop" if by == "trailing" else "breakeven"
