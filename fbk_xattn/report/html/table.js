// The table of utterances: sorting by its headers, filtering by words.

function wireTable(table, filter, shown) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => sortBy(table, headers, column));
  });
  filter.addEventListener("input", () => filterRows(table, filter.value, shown));
}

function sortBy(table, headers, column) {
  const header = headers[column];
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of headers) other.setAttribute("aria-sort", other === header ? direction : "none");
  const rows = [...table.tBodies[0].rows];
  const sign = direction === "ascending" ? 1 : -1;
  const isNumber = header.dataset.kind === "number";
  const keys = new Map(rows.map((row) => [row, keyOf(row.cells[column], isNumber)]));
  rows.sort((one, other) => compared(keys.get(one), keys.get(other), sign));
  table.tBodies[0].append(...rows);
}

function keyOf(cell, isNumber) {
  if (!isNumber) return cell.textContent;
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

// What is not there comes last in either direction.
function compared(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "string") return sign * one.localeCompare(other);
  return sign * (one - other);
}

// Rows with all of the words, wherever in the row.
function filterRows(table, text, shown) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const content = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => content.includes(word));
  }
  shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
}

// The utterance after (or before, with -1) this one, among the rows that are shown.
function neighbour(table, index, distance) {
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const here = rows.findIndex((row) => Number(row.dataset.index) === index);
  const next = rows[here + distance];
  return here === -1 || !next ? null : Number(next.dataset.index);
}
