// The page of a walk: the ranking, and the curves of all strategies.
"use strict";
const { rows, curves } = read("data");
const figure = (value, digits = 3) =>
  value === null
    ? "n/a"
    : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const low = (value) => value ?? -Infinity;
const columns = [
  { title: "Rank", value: (row) => rows[row].rank ?? Infinity, text: (row) => String(rows[row].rank ?? ""), number: true },
  { title: "Strategy", value: (row) => rows[row].name, text: (row) => rows[row].name },
  { title: "Metric", value: (row) => low(rows[row].metric), text: (row) => figure(rows[row].metric), number: true },
  { title: "95 % interval", value: (row) => low(rows[row].lower), text: (row) => rows[row].interval, number: true },
  { title: "Adjusted p", value: (row) => rows[row].p ?? Infinity, text: (row) => figure(rows[row].p), number: true },
  { title: "Deflated Sharpe", value: (row) => low(rows[row].deflated), text: (row) => figure(rows[row].deflated), number: true },
  { title: "PSR", value: (row) => low(rows[row].psr), text: (row) => figure(rows[row].psr), number: true },
  { title: "Trades", value: (row) => rows[row].trades, text: (row) => rows[row].trades.toLocaleString("en-US"), number: true },
  { title: "Trades needed", value: (row) => rows[row].needed ?? Infinity, text: (row) => figure(rows[row].needed, 0), number: true },
  { title: "Total, %", value: (row) => low(rows[row].total), text: (row) => figure(rows[row].total, 2), number: true, tone: true },
  { title: "Drawdown, %", value: (row) => low(rows[row].drawdown), text: (row) => figure(rows[row].drawdown, 2), number: true },
];

if (rows.some((row) => row.equity !== null)) {
  columns.push(
    { title: "Final equity", value: (row) => low(rows[row].equity), text: (row) => figure(rows[row].equity, 2), number: true },
    { title: "Its drawdown, %", value: (row) => low(rows[row].fall), text: (row) => figure(rows[row].fall, 2), number: true },
  );
}

const source = (name) => model(name);

function choose(row) {
  listed.show(row);
  const curve = curves.find((one) => one.name === rows[row].name);
  if (!curve) return;
  source("chosen").data = { x: curve.x, y: curve.y };
  document.getElementById("curve").textContent = curve.name;
  document.getElementById("profits").scrollIntoView();
}

const listed = sortableTable(document.querySelector(".listing"), columns, rows.length, choose, { page: 50 });

async function main() {
  await drawCharts();
  if (curves.length) {
    const [best, ...others] = curves;
    source("others").data = { xs: others.map((one) => one.x), ys: others.map((one) => one.y) };
    source("best").data = { x: best.x, y: best.y };
  }
  followTheme();
  document.documentElement.dataset.ready = "true";
}
main();
