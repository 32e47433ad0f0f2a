// The page of a backtest: candles thinned by zoom level, trades on them, and the table of trades.
"use strict";
const LEAST_PIXELS = 3; // of a candle and the space beside it
const REACH = 1; // widths of the view that are drawn on either side of it
const FEW = 40; // trades in view whose levels count for the scale of prices

const data = read("data");
const trades = data.trades;
const count = trades.opened.length;
let chart = null;

/** The chart of prices. */
class PriceChart {
  constructor(candles, ladder) {
    this.levels = new Map([[candles.step, candles]]);
    this.steps = [candles.step, ...ladder];
    const last = this.steps.at(-1);
    const longer = WEEK % last === 0 ? WEEK : last * 2;
    for (let i = 0; i < 12; i++) this.steps.push(longer * 2 ** i);
    this.base = candles;
    [this.range, this.prices, this.plot] = ["shown", "prices", "price"].map(model);
    this.full = [this.range.start, this.range.end];
    this.view = Bokeh.index.find_one(this.plot);
    this.sources = Object.fromEntries(
      models().filter((one) => one.type === "ColumnDataSource" && one.name).map((s) => [s.name, s]),
    );
    this.bodies = ["body_up", "body_down"].map(model);
    this.drawn = null;
    this.seen = [NaN, NaN];
    this.drawTrades();
    const update = () => this.update(); // at once: what it changes is painted with the range
    this.range.properties.start.change.connect(update);
    this.range.properties.end.change.connect(update);
    this.plot.on_event("tap", (event) => this.tap(event));
    this.plot.on_event("mousemove", (event) => this.describe(event.x));
    this.update();
  }

  width() {
    return this.view.frame.bbox.width || 600;
  }

  level(step) {
    if (!this.levels.has(step)) this.levels.set(step, regroup(this.base, step));
    return this.levels.get(step);
  }

  update() {
    const { start, end } = this.range;
    if (this.seen[0] === start && this.seen[1] === end) return;
    this.seen = [start, end];
    const room = Math.max(this.width() / LEAST_PIXELS, 40);
    const step = this.steps.find((one) => (end - start) / one <= room) ?? this.steps.at(-1);
    const level = this.level(step);
    const drawn = this.drawn;
    if (!drawn || drawn.step !== step || start < drawn.from || end > drawn.until) {
      this.drawCandles(level, start - REACH * (end - start), end + REACH * (end - start));
    }
    this.scale(level, start, end);
    this.sizeMarkers(start, end);
    if (step !== this.named) document.getElementById("thinning").textContent = `each candle ${durationText(step)}`;
    this.named = step;
  }

  drawCandles(level, from, until) {
    const { step, x, open, high, low, close } = level;
    const [first, last] = [lowerBound(x, from - step), lowerBound(x, until)];
    const columns = () => ({ x: [], open: [], high: [], low: [], close: [] });
    const sides = [columns(), columns()];
    for (let row = first; row < last; row++) {
      const side = sides[close[row] >= open[row] ? 0 : 1];
      side.x.push(x[row] + step / 2);
      side.open.push(open[row]);
      side.high.push(high[row]);
      side.low.push(low[row]);
      side.close.push(close[row]);
    }
    for (const body of this.bodies) body.width = step * 0.7;
    this.sources.candles_up.data = sides[0];
    this.sources.candles_down.data = sides[1];
    this.drawn = { step, from, until };
  }

  scale(level, start, end) {
    const first = Math.max(lowerBound(level.x, start - level.step + 1), 0);
    const last = lowerBound(level.x, end);
    let [low, high] = [Infinity, -Infinity];
    for (let row = first; row < last; row++) {
      if (level.low[row] < low) low = level.low[row];
      if (level.high[row] > high) high = level.high[row];
    }
    const seen = [];
    for (let row = 0; row < count && seen.length <= FEW; row++) {
      if (trades.opened[row] < end && trades.closed[row] > start) seen.push(row);
    }
    if (seen.length <= FEW) {
      for (const row of seen) {
        low = Math.min(low, ...levelsOf(row));
        high = Math.max(high, ...levelsOf(row));
      }
    }
    if (low > high) return;
    const margin = (high - low) * 0.06 || Math.abs(high) * 0.01 || 1;
    this.prices.setv({ start: low - margin, end: high + margin });
  }

  /** Make marks small where there are many. */
  sizeMarkers(start, end) {
    const seen = lowerBound(trades.opened, end) - lowerBound(trades.opened, start);
    const room = (this.width() / Math.max(seen, 1)) * 0.7;
    const size = Math.round(Math.min(Math.max(room, 4), 12));
    if (size === this.markers) return;
    this.markers = size;
    for (const { glyph: one } of this.plot.renderers) {
      if (one.type !== "Scatter") continue;
      const cross = one.marker.value === "x";
      one.setv({ size: { value: size }, line_width: { value: cross ? size / 5 : size > 7 ? 1 : 0 } });
    }
  }

  drawTrades() {
    const { opened, closed, entry, exit, goal, stop, reason, long } = trades;
    const zone = (level) => ({
      left: opened,
      right: closed,
      bottom: entry.map((price, row) => Math.min(price, level[row] ?? price)),
      top: entry.map((price, row) => Math.max(price, level[row] ?? price)),
    });
    this.sources.profit_zones.data = zone(goal);
    this.sources.loss_zones.data = zone(stop);
    this.sources.paths.data = { x0: opened, y0: entry, x1: closed, y1: exit };
    const points = (rows, x, y) => ({ x: rows.map((row) => x[row]), y: rows.map((row) => y[row]) });
    const rows = [...opened.keys()];
    const side = (isLong) => rows.filter((row) => long[row] === isLong);
    this.sources.long_entries.data = points(side(true), opened, entry);
    this.sources.short_entries.data = points(side(false), opened, entry);
    for (const name of Object.keys(this.sources).filter((name) => name.startsWith("exits_"))) {
      const ended = rows.filter((row) => `exits_${reason[row]}` === name);
      this.sources[name].data = points(ended, closed, exit);
    }
  }

  /** Show a trade with some time around it. */
  show(row) {
    const { opened, closed } = trades;
    const around = Math.max(closed[row] - opened[row], 20 * this.base.step) * 1.5;
    this.range.setv({ start: opened[row] - around, end: closed[row] + around });
    this.sources.chosen.data = {
      left: [opened[row]],
      right: [closed[row]],
      bottom: [Math.min(...levelsOf(row))],
      top: [Math.max(...levelsOf(row))],
    };
  }

  showSpan(length) {
    if (!length) return this.range.setv({ start: this.full[0], end: this.full[1] });
    const middle = (this.range.start + this.range.end) / 2;
    this.range.setv({ start: middle - length / 2, end: middle + length / 2 });
  }

  move(share) {
    const by = share * (this.range.end - this.range.start);
    this.range.setv({ start: this.range.start + by, end: this.range.end + by });
  }

  /** Choose the trade nearest to where the chart was clicked, if it is near. */
  tap(event) {
    const perX = (this.range.end - this.range.start) / this.width();
    const perY = (this.prices.end - this.prices.start) / (this.view.frame.bbox.height || 400);
    const away = (x, y) => Math.hypot((event.x - x) / perX, (event.y - y) / perY);
    let [nearest, least] = [-1, 24];
    for (let row = 0; row < count; row++) {
      const within = trades.opened[row] <= event.x && event.x <= trades.closed[row];
      const levels = levelsOf(row);
      const inside = within && Math.min(...levels) <= event.y && event.y <= Math.max(...levels);
      const distance = Math.min(
        away(trades.opened[row], trades.entry[row]),
        away(trades.closed[row], trades.exit[row]),
        inside ? 12 : Infinity,
      );
      if (distance < least) [nearest, least] = [row, distance];
    }
    if (nearest >= 0) choose(nearest, false);
  }

  describe(time) {
    const level = this.level(this.drawn.step);
    const row = lowerBound(level.x, time - level.step + 1);
    const element = document.getElementById("candle");
    if (row >= level.x.length || level.x[row] > time) {
      element.textContent = "";
      return;
    }
    const [o, h, l, c] = ["open", "high", "low", "close"].map((name) => priceText(level[name][row]));
    element.textContent = `${timeText(level.x[row])}  O ${o}  H ${h}  L ${l}  C ${c}`;
  }
}

/** Return the target and the stop of a trade; its entry for one that is not there. */
function levelsOf(row) {
  return [trades.goal[row], trades.stop[row]].map((price) => price ?? trades.entry[row]);
}

const columns = tradeColumns(trades);

function sentence(row) {
  const { opened, closed, entry, exit, profit, reason, note } = trades;
  const parts = [
    sideText(trades, row),
    `${timeText(opened[row])} for ${durationText(closed[row] - opened[row])}`,
    `${priceText(entry[row])} \u2192 ${priceText(exit[row])}`,
    percentText(profit[row], 3),
    words(reason[row]) + (trades.ambiguous[row] ? " (ambiguous)" : ""),
    note[row],
  ];
  return `Trade ${row + 1}: ${parts.filter(Boolean).join(" \u00b7 ")}`;
}

let chosen = -1;
let listed = null;

/** Show a trade on the chart, in the table and in words. */
function choose(row, scroll) {
  if (row < 0 || row >= count) return;
  chosen = row;
  chart?.show(row);
  listed.show(row);
  document.getElementById("trade").textContent = sentence(row);
  if (scroll && chart) document.getElementById("prices-title").scrollIntoView();
}

const SPANS = { all: 0, month: 2_629_800_000, week: 604_800_000, day: 86_400_000 };

function listen() {
  const bar = document.getElementById("controls");
  const step = (by) => choose(chosen < 0 ? (by > 0 ? 0 : count - 1) : chosen + by, false);
  const actions = {
    in: () => chart.showSpan((chart.range.end - chart.range.start) / 2),
    out: () => chart.showSpan((chart.range.end - chart.range.start) * 2),
    previous: () => step(-1),
    next: () => step(1),
    left: () => chart.move(-0.25),
    right: () => chart.move(0.25),
  };
  for (const [name, length] of Object.entries(SPANS)) actions[name] = () => chart.showSpan(length);
  bar.addEventListener("click", (event) => actions[event.target.dataset?.do]?.());
  const keys = { ArrowLeft: "left", ArrowRight: "right", "+": "in", "-": "out", n: "next", p: "previous", 0: "all" };
  document.getElementById("price").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    actions[keys[event.key]]();
  });
}

async function main() {
  listed = sortableTable(document.querySelector(".listing"), columns, count, (row) => choose(row, true));
  await drawCharts();
  if (data.candles) {
    chart = new PriceChart(await unpackCandles(data.candles), data.candles.ladder);
    listen();
  }
  followTheme();
  document.documentElement.dataset.ready = "true";
}
main();
