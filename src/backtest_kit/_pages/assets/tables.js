// A long table: sorted by its heads (mouse or keyboard), a page of rows at a time.
"use strict";
const PAGE = 100;

const TIME = new Intl.DateTimeFormat("sv-SE", {
  timeZone: "UTC",
  year: "numeric",
  month: "2-digit",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
});
const timeText = (ms) => TIME.format(ms);
const priceText = (value) =>
  value.toLocaleString("en-US", { maximumSignificantDigits: 8, useGrouping: true });
const percentText = (value, digits = 2) => {
  const text = value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
    signDisplay: "exceptZero",
  });
  return `${text} %`;
};
const durationText = (ms) => {
  const minutes = Math.round(ms / 60_000);
  const [days, hours] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24];
  const parts = days ? [`${days} d`, hours && `${hours} h`] : [hours && `${hours} h`, minutes % 60 && `${minutes % 60} min`];
  return parts.filter(Boolean).join(" ") || `${minutes} min`;
};

/**
 * Fill the table in `root` with `count` rows.
 * columns: {title, value(row) to sort by, text(row), number}; choose(row): a row was chosen;
 * page: how many rows are shown at a time.
 * Returns {show(row)}, which turns to a row and marks it.
 */
function sortableTable(root, columns, count, choose, page = PAGE) {
  const order = Uint32Array.from({ length: count }, (_, row) => row);
  const [head, body] = [root.querySelector("thead tr"), root.querySelector("tbody")];
  const status = root.querySelector(".status");
  for (const button of root.querySelectorAll(".pages button")) button.hidden = count <= page;
  let first = 0;
  let marked = -1;

  const heads = columns.map((column, index) => {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    cell.scope = "col";
    if (column.number) cell.className = "number";
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => sort(index));
    cell.append(button);
    head.append(cell);
    return cell;
  });

  function sort(index) {
    const up = heads[index].getAttribute("aria-sort") !== "ascending";
    heads.forEach((cell) => cell.removeAttribute("aria-sort"));
    heads[index].setAttribute("aria-sort", up ? "ascending" : "descending");
    const { value } = columns[index];
    const sign = up ? 1 : -1;
    order.sort((a, b) => {
      const [one, other] = [value(a), value(b)];
      return (one < other ? -sign : one > other ? sign : 0) || a - b;
    });
    first = 0;
    draw();
  }

  function draw() {
    const rows = Array.from(order.subarray(first, first + page), (row) => {
      const line = document.createElement("tr");
      line.dataset.row = row;
      line.tabIndex = 0;
      if (row === marked) line.setAttribute("aria-current", "true");
      for (const column of columns) {
        const cell = document.createElement("td");
        cell.textContent = column.text(row);
        if (column.number) cell.className = "number";
        if (column.tone) cell.classList.add(column.value(row) < 0 ? "bad" : "good");
        line.append(cell);
      }
      return line;
    });
    body.replaceChildren(...rows);
    const last = Math.min(first + page, count);
    status.textContent = count ? `${first + 1} to ${last} of ${count}` : "none";
    root.querySelector(".earlier").disabled = first === 0;
    root.querySelector(".later").disabled = last >= count;
  }

  function turn(by) {
    first = Math.max(0, Math.min(first + by, Math.floor((count - 1) / page) * page));
    draw();
  }
  root.querySelector(".earlier").addEventListener("click", () => turn(-page));
  root.querySelector(".later").addEventListener("click", () => turn(page));
  const pick = (event) => {
    const line = event.target.closest("tr");
    if (line) choose(Number(line.dataset.row));
  };
  body.addEventListener("click", pick);
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(event);
    }
  });

  draw();
  return {
    show(row) {
      marked = row;
      first = Math.floor(order.indexOf(row) / page) * page;
      draw();
      return body.querySelector(`[data-row="${row}"]`);
    },
  };
}

const words = (text) => text.replaceAll("_", "-").replace("time-expired", "time expired").replace("end-of-data", "end of data");
const sideText = (trades, row) => (trades.long[row] ? "\u25b2 long" : "\u25bc short");

/** Return the columns of a table of trades, from what `trade_columns` gives. */
function tradeColumns(trades) {
  const plain = (title, name, text, more) => ({
    title,
    value: (row) => trades[name][row],
    text: (row) => text(trades[name][row], row),
    ...more,
  });
  const number = { number: true };
  const levelText = (price) => (price === null ? "none" : priceText(price));
  const held = (row) => trades.closed[row] - trades.opened[row];
  return [
    { title: "#", value: (row) => row, text: (row) => String(row + 1), number: true },
    plain("Opened (UTC)", "opened", timeText),
    { title: "Held", value: held, text: (row) => durationText(held(row)), number: true },
    plain("Side", "long", (_, row) => sideText(trades, row)),
    plain("Entry", "entry", priceText, number),
    plain("Exit", "exit", priceText, number),
    plain("Take-profit", "goal", levelText, number),
    plain("Stop-loss", "stop", levelText, number),
    plain("Profit", "profit", (value) => percentText(value, 3), { number: true, tone: true }),
    plain("Closed by", "reason", (reason, row) => words(reason) + (trades.ambiguous[row] ? " (ambiguous)" : "")),
    plain("Note", "note", (note) => note),
  ];
}
