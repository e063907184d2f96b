// Filters of the segment table: as SQL for `audiopipe select` and the kernel, and as a test of the rows of a page.
const MISSING = "missing";
const quoteText = (text) => `'${text.replaceAll("'", "''")}'`;
const quoteWord = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
// DuckDB takes 1e-3 as a double, but 0.001 in the precision of the column.
const decimal = (value) => (/e/i.test(`${value}`) ? Number(value).toFixed(15).replace(/\.?0+$/, "") : `${value}`);
const decimalOf = (number) => Number(number.toPrecision(6));
const isLimit = (value) => value !== "" && value !== null && value !== undefined && Number.isFinite(Number(value));

function newFilter(column) {
  if (column.kind === "number") return { column, min: "", max: "", below: false, missing: false };
  return column.kind === "text" ? { column, contains: "" } : { column, values: [] };
}

// Return the filter as SQL, or an empty text if it filters nothing. `below` excludes the maximum itself.
function filterSql({ column, ...filter }) {
  const { sql, kind } = column;
  if (kind === "text") return filter.contains ? `contains(lower(${sql}), lower(${quoteText(filter.contains)}))` : "";
  if (kind === "number") {
    const limits = [
      ...(isLimit(filter.min) ? [`${sql} >= ${decimal(filter.min)}`] : []),
      ...(isLimit(filter.max) ? [`${sql} ${filter.below ? "<" : "<="} ${decimal(filter.max)}`] : []),
    ].join(" AND ");
    return limits && filter.missing ? `(${limits} OR ${sql} IS NULL)` : limits;
  }
  const known = filter.values.filter((value) => value !== null);
  const parts = kind === "flag" ? known.map((value) => (value ? sql : `NOT ${sql}`)) :
    known.length ? [`${sql} IN (${known.map(quoteText).join(", ")})`] : [];
  if (filter.values.includes(null)) parts.push(`${sql} IS NULL`);
  return parts.length > 1 ? `(${parts.join(" OR ")})` : parts.join("");
}

// Return a test of a value that agrees with the SQL.
function filterTest({ column, ...filter }) {
  if (column.kind === "text") {
    const part = filter.contains.toLowerCase();
    return (value) => value !== null && value.toLowerCase().includes(part);
  }
  if (column.kind !== "number") {
    const values = new Set(filter.values);
    return (value) => values.has(value);
  }
  const round = column.is_float32 ? Math.fround : Number;
  const low = isLimit(filter.min) ? round(Number(filter.min)) : -Infinity;
  const high = isLimit(filter.max) ? round(Number(filter.max)) : Infinity;
  return (value) => (value === null ? filter.missing :
    round(value) >= low && (filter.below && isLimit(filter.max) ? round(value) < high : round(value) <= high));
}

const formatCount = (count) => count.toLocaleString("en-US");
function formatValue(value, column) {
  if (value === null || value === undefined) return "–";
  if (column.kind === "flag") return value ? "yes" : "no";
  if (column.kind !== "number") return value;
  // A value that would be rounded to 0 keeps two digits.
  if (value && Math.abs(value) < 0.5 * 10 ** -column.digits) return `${Number(value.toPrecision(2))}`.replace(/-/g, "−");
  const options = { minimumFractionDigits: column.digits, maximumFractionDigits: column.digits };
  return value.toLocaleString("en-US", options).replace("-", "−");
}
