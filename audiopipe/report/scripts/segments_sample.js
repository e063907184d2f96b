// The rows that a page embeds, as the source of its table.
function sampleSource(data) {
  const places = Object.fromEntries(data.columns.map((column, index) => [column.name, index]));
  const rows = data.rows.map((values, index) => ({ values, index }));
  const hasAudio = (row) => row.index < data.audio.length;
  const value = (row, name) => row.values[places[name]];
  const match = ({ filters, onlyAudio }) => {
    const tests = filters.filter(filterSql).map((filter) => [places[filter.column.name], filterTest(filter)]);
    return rows.filter((row) => (!onlyAudio || hasAudio(row)) && tests.every(([place, test]) => test(row.values[place])));
  };
  const compare = (a, b, direction) => (a === null || b === null ? (a === null) - (b === null) :
    direction * (typeof a === "string" ? (a < b ? -1 : a > b ? 1 : 0) : a - b));
  // A number for each row that looks random and is the same for the same seed.
  const shuffled = (index, seed) => Math.imul(Math.imul(index + 1, 2654435761) ^ Math.imul(seed + 1, 1597334677), 2246822519) >>> 0;
  const order = (chosen, { sort, descending, seed }) => (seed !== null ?
    chosen.toSorted((a, b) => hasAudio(b) - hasAudio(a) || shuffled(a.index, seed) - shuffled(b.index, seed)) :
    sort === null ? chosen :
    chosen.toSorted((a, b) => compare(value(a, sort), value(b, sort), descending ? -1 : 1) || a.index - b.index));
  const numbers = (name, chosen) => chosen.map((row) => value(row, name)).filter((number) => number !== null);

  return {
    isSample: true,
    async page(query) {
      const chosen = match(query);
      return {
        rows: order(chosen, query).slice(query.offset, query.offset + query.limit).map((row) => row.values),
        total: chosen.length,
        seconds: chosen.reduce((sum, row) => sum + value(row, "duration_s"), 0),
        audio: chosen.filter(hasAudio).length,
      };
    },
    async ranges(names) {
      return Object.fromEntries(names.map((name) => {
        const sorted = numbers(name, rows).sort((a, b) => a - b), last = sorted.length - 1;
        return [name, last < 0 ? null : [sorted[Math.floor(0.005 * last)], sorted[Math.ceil(0.995 * last)]]];
      }));
    },
    async charts(bins, names, query) {
      const chosen = match(query);
      const counts = Object.fromEntries(Object.entries(bins).map(([name, { low, step, bins: number }]) => {
        const counts = Array(number).fill(0);
        for (const item of numbers(name, chosen)) {
          counts[Math.min(Math.max(Math.floor((item - low) / step), 0), number - 1)]++;
        }
        return [name, counts];
      }));
      const values = Object.fromEntries(names.map((name) => {
        const byValue = new Map();
        for (const row of chosen) byValue.set(value(row, name), (byValue.get(value(row, name)) ?? 0) + 1);
        return [name, [...byValue].sort((a, b) => b[1] - a[1])];
      }));
      return { counts, values };
    },
    hasAudio: (values) => hasAudio({ index: data.rows.indexOf(values) }),
    async audio(values) {
      const text = data.audio[data.rows.indexOf(values)];
      return text ? new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: "audio/mpeg" }) : null;
    },
    async keys(query) {
      const cell = (item) => (typeof item === "string" ? `"${item.replaceAll('"', '""')}"` : item ?? "");
      const lines = match(query).map((row) => data.keys.map((name) => cell(value(row, name))).join(","));
      return new Blob([[data.keys.map(cell).join(","), ...lines, ""].join("\n")], { type: "text/csv" });
    },
  };
}

{
  const root = document.currentScript.parentElement;
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const close = segmentTable(root, data, sampleSource(data));
  // In JupyterLab the kernel takes over, before or after this script is executed.
  root.upgrade = (settings, source) => { close(); segmentTable(root, settings, source); };
  const kernel = window.audiopipeTables?.[root.dataset.table];
  if (kernel) root.upgrade(...kernel);
}
