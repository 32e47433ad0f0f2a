// What all pages share: reading the data, light and dark, drawing the charts.
"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Draw all charts, in light or dark colours. */
async function drawCharts() {
  for (const [id, item] of Object.entries(read("charts"))) {
    await Bokeh.embed.embed_item(item, id);
  }
  fitToHand();
  paint();
}

/** On a phone: a finger that moves up or down on a chart scrolls the page; fewer labels on axes. */
function fitToHand() {
  for (const one of models()) {
    if (innerWidth < 640 && "desired_num_ticks" in one.properties) {
      one.setv({ desired_num_ticks: Math.min(one.desired_num_ticks, 3) });
    }
    const events = one.type === "Figure" ? Bokeh.index.find_one(one)?.canvas_view?.events_el : null;
    if (events) events.style.touchAction = "pan-y";
  }
}

const models = () =>
  Bokeh.documents.flatMap((doc) => doc.roots().flatMap((root) => [root, ...root.references()]));
const model = (name) => models().find((one) => one.name === name);

/** Give everything on the charts the colours of the theme. */
function paint() {
  const [text, muted, line] = ["text", "muted", "line"].map(color);
  for (const one of models()) {
    for (const tag of Array.isArray(one.tags) ? one.tags : []) {
      const [property, role] = String(tag).split("=");
      if (role && property in one.properties) one.setv({ [property]: color(role) });
    }
    if ("major_label_text_color" in one.properties) {
      one.setv({
        major_label_text_color: muted,
        axis_label_text_color: muted,
        axis_line_color: line,
        major_tick_line_color: line,
      });
    }
    if ("grid_line_color" in one.properties && one.grid_line_color !== null) {
      one.setv({ grid_line_color: line });
    }
  }
}

/** Let the button switch between light and dark; the system decides until it is pressed. */
function followTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "Light" : "Dark";
    paint();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

/** Undo `packed_candles`: whole numbers in byte planes, as differences. */
async function unpackCandles(data) {
  const text = atob(data.packed);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const { rows, scale, step } = data;
  const column = (index) => {
    const numbers = new Int32Array(rows);
    let at = index * 4 * rows;
    for (let shift = 0; shift < 32; shift += 8) {
      for (let row = 0; row < rows; row++) numbers[row] |= planes[at++] << shift;
    }
    return numbers;
  };
  const [skipped, gap, above, below, body] = [0, 1, 2, 3, 4].map(column);
  const [x, open, high, low, close] = Array.from({ length: 5 }, () => new Float64Array(rows));
  let place = data.start - step;
  let last = 0;
  for (let row = 0; row < rows; row++) {
    place += (skipped[row] + 1) * step;
    const first = last + gap[row];
    last = first + body[row];
    x[row] = place;
    open[row] = first / scale;
    high[row] = (Math.max(first, last) + above[row]) / scale;
    low[row] = (Math.min(first, last) - below[row]) / scale;
    close[row] = last / scale;
  }
  return { step, x, open, high, low, close };
}

const WEEK = 604_800_000;
const MONDAY = 345_600_000; // the first one after the epoch

/** Return candles of a longer step; a bucket without any is left out. */
function regroup(candles, step) {
  const { x, open, high, low, close } = candles;
  const shift = step % WEEK === 0 ? MONDAY : 0;
  const found = { step, x: [], open: [], high: [], low: [], close: [] };
  let last = -1;
  let bucket = NaN;
  for (let row = 0; row < x.length; row++) {
    const begins = Math.floor((x[row] - shift) / step) * step + shift;
    if (begins !== bucket) {
      bucket = begins;
      last += 1;
      found.x.push(begins);
      found.open.push(open[row]);
      found.high.push(high[row]);
      found.low.push(low[row]);
      found.close.push(close[row]);
      continue;
    }
    if (high[row] > found.high[last]) found.high[last] = high[row];
    if (low[row] < found.low[last]) found.low[last] = low[row];
    found.close[last] = close[row];
  }
  for (const name of ["x", "open", "high", "low", "close"]) {
    found[name] = Float64Array.from(found[name]);
  }
  return found;
}

/** Return the first index whose value is not below `value`. */
function lowerBound(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
