// The page of live runs: the table of trades; the charts need nothing more.
"use strict";
const { trades, runs } = read("data");
const columns = tradeColumns(trades);
if (new Set(runs).size > 1) {
  columns.splice(1, 0, { title: "Run", value: (row) => runs[row], text: (row) => String(runs[row]), number: true });
}
const listed = sortableTable(document.querySelector(".listing"), columns, runs.length, (row) => listed.show(row), { details: tradeDetails(trades) });

async function main() {
  await drawCharts();
  followTheme();
  document.documentElement.dataset.ready = "true";
}
main();
