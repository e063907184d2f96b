// Tables: a click on a heading sorts by it, a second one the other way round; long tables can be filtered.
(() => {
  const LONG = 15;
  const UNITS = { s: 1, min: 60, h: 3600, d: 86400, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };
  // "1 min 5 s" and "20.6 MB" by what they are together, "179 / 180 (99 %)" by its first number, text as text.
  const value = (cell) => {
    const text = cell.textContent.trim().replace(/−/g, "-").replace(/,(?=\d{3})/g, "").replace(/^[<>≥] ?|^\$|^\+/, "");
    const parts = [...text.matchAll(/(-?\d+\.?\d*) (min|s|h|d|[kMGT]?B)\b/g)];
    if (parts.length && /^[-\d]/.test(text)) return parts.reduce((sum, [, n, unit]) => sum + n * UNITS[unit], 0);
    const first = text.match(/^-?(\d+\.?\d*|∞)/);
    return first ? Number(first[0].replace("∞", "Infinity")) : text;
  };
  // Numbers before text, and what is missing last, whichever way.
  const rank = (one) => (typeof one === "number" ? 0 : /^[–·]?$/.test(one) ? 2 : 1);
  const compare = (a, b, way) =>
    rank(a) - rank(b) || way * (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));

  for (const table of document.querySelectorAll(".ap .wide table")) {
    const body = table.tBodies[0], rows = [...body.rows].filter((row) => !row.matches(".sum"));
    const sum = body.querySelector("tr.sum");
    if (rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent || rows.every((row) => !row.cells[column]?.textContent.trim())) return;
      const sort = () => {
        const way = head.ariaSort === "ascending" ? -1 : 1;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
        rows.sort((a, b) => compare(value(a.cells[column]), value(b.cells[column]), way));
        body.append(...rows, ...(sum ? [sum] : []));
      };
      head.classList.add("sorts");
      head.tabIndex = 0;
      head.title = "sort by " + head.textContent;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
    });
    if (rows.length > LONG) {
      const search = Object.assign(document.createElement("input"), {
        type: "search", placeholder: `filter ${rows.length} rows`, ariaLabel: "filter rows", className: "filter",
      });
      search.addEventListener("input", () => {
        for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(search.value.toLowerCase());
      });
      table.parentElement.before(search);
    }
  }
})();
