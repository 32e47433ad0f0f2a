// The page of an account: the table of trades in money; the charts need nothing more.
"use strict";
const { trades, currency } = read("data");
const count = trades.opened_at.length;
const number = { number: true };
const amountText = (value) => {
  const large = Math.abs(value) >= 1 || value === 0;
  const digits = large ? { minimumFractionDigits: 2, maximumFractionDigits: 2 } : { maximumSignificantDigits: 4 };
  return value.toLocaleString("en-US", digits);
};
const quantityText = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 8 });
const plain = (title, name, text, more) => ({
  title,
  value: (row) => trades[name][row],
  text: (row) => text(trades[name][row], row),
  ...more,
});
const reasonText = (reason, row) =>
  words(reason) + (trades.liquidated[row] ? " (liquidated)" : "") + (trades.reduced[row] ? " (reduced)" : "");
const columns = [
  { title: "#", value: (row) => row, text: (row) => String(row + 1), number: true },
  plain("Opened (UTC)", "opened_at", timeText),
  plain("Held", "minutes", (minutes) => durationText(minutes * 60_000), number),
  plain("Strategy", "strategy_name", String),
  plain("Symbol", "symbol", String),
  plain("Side", "position", (side) => (side === "long" ? "\u25b2 long" : "\u25bc short")),
  plain("Quantity", "quantity", quantityText, number),
  plain(`Cost, ${currency}`, "cost", amountText, number),
  plain("Fees", "fees", amountText, number),
  plain("Slippage", "slippage", amountText, number),
  plain("Profit", "profit", amountText, { number: true, tone: true }),
  plain("Of the cost", "profit_percent", (value) => percentText(value, 3), { number: true, tone: true }),
  plain("Reason", "close_reason", reasonText),
];
const listed = sortableTable(document.querySelector(".listing"), columns, count, (row) => listed.show(row));

async function main() {
  await drawCharts();
  followTheme();
  document.documentElement.dataset.ready = "true";
}
main();
