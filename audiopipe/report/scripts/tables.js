// Tables: click a heading to sort by it, click again to reverse; long tables get a filter, and longer ones are folded.
(() => {
  const LONG = 15, FOLD = 25, SHOWN = 20;
  const UNITS = { s: 1, min: 60, h: 3600, d: 86400, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };
  // "1 min 5 s" and "20.6 MB" sort by their sum in the base unit, "179 / 180 (99 %)" by its first number, text as text.
  const sortKey = (cell) => {
    const text = cell.textContent.trim().replace(/−/g, "-").replace(/,(?=\d{3})/g, "").replace(/^[<>≥] ?|^\$|^\+/, "");
    const parts = [...text.matchAll(/(-?\d+\.?\d*) (min|s|h|d|[kMGT]?B)\b/g)];
    if (parts.length && /^[-\d]/.test(text)) return parts.reduce((sum, [, n, unit]) => sum + n * UNITS[unit], 0);
    const first = text.match(/^-?(\d+\.?\d*|∞)/);
    return first ? Number(first[0].replace("∞", "Infinity")) : text;
  };
  // Numbers come before text and missing values last, in both directions.
  const rank = (key) => (typeof key === "number" ? 0 : /^[–·]?$/.test(key) ? 2 : 1);
  const compare = (a, b, direction) =>
    rank(a) - rank(b) || direction * (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));

  for (const table of document.querySelectorAll(".ap .wide table")) {
    const body = table.tBodies[0], rows = [...body.rows].filter((row) => !row.matches(".sum"));
    const total = body.querySelector("tr.sum");
    if (rows.length < 3 || table.closest(".browse")) continue;  // the segment table sorts by itself
    const headings = [...table.tHead.rows[0].cells];
    let search = null, folded = rows.length > FOLD;
    // While a filter is set, every row that matches is shown.
    const fold = () => rows.forEach((row, index) =>
      row.classList.toggle("folded", folded && !search?.value && index >= SHOWN));
    headings.forEach((heading, column) => {
      if (!heading.textContent || rows.every((row) => !row.cells[column]?.textContent.trim())) return;
      const sort = () => {
        const direction = heading.ariaSort === "ascending" ? -1 : 1;
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        rows.sort((a, b) => compare(sortKey(a.cells[column]), sortKey(b.cells[column]), direction));
        body.append(...rows, ...(total ? [total] : []));
        fold();
      };
      heading.classList.add("sorts");
      heading.tabIndex = 0;
      heading.title = "sort by " + heading.textContent;
      heading.addEventListener("click", sort);
      heading.addEventListener("keydown", (event) => event.key === "Enter" && sort());
    });
    if (rows.length > LONG) {
      search = Object.assign(document.createElement("input"), {
        type: "search", placeholder: `filter ${rows.length} rows`, ariaLabel: "filter rows", className: "filter",
      });
      search.addEventListener("input", () => {
        for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(search.value.toLowerCase());
        fold();
      });
      table.parentElement.before(search);
    }
    if (folded) {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "unfold" });
      const label = () => { button.textContent = folded ? `show all ${rows.length} rows` : `show ${SHOWN} rows`; };
      button.addEventListener("click", () => {
        folded = !folded;
        fold();
        label();
      });
      table.parentElement.after(button);
      label();
      fold();
    }
  }
})();
