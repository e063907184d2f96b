// Small histograms in the heading of a column: a click on a bar filters the table to its values.
const BINS = 20;

// Return bins of a round width that cover a range.
function roundBins([low, high], column) {
  const width = (high - low) / BINS || Math.abs(low) / BINS || 1, power = 10 ** Math.floor(Math.log10(width));
  const factor = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= width * 0.999) ?? 10;
  const step = Number((column.digits === 0 ? Math.max(1, Math.ceil(factor * power)) : factor * power).toPrecision(6));
  const start = Number((Math.floor(low / step) * step).toPrecision(9));
  return { low: start, step, bins: Math.max(1, Math.floor((high - start) / step) + 1) };
}

// Return the limits of a bin; the outer ones are open, for they have all values beyond.
function binLimits({ low, step, bins }, index) {
  const edge = (number) => Number((low + number * step).toPrecision(9));
  return { min: index === 0 ? "" : edge(index), max: index === bins - 1 ? "" : edge(index + 1) };
}

function describeBin(bins, index, column) {
  const { min, max } = binLimits(bins, index);
  const text = (value) => String(value).replace("-", "−");
  const range = min === "" && max === "" ? "all values" : min === "" ? `below ${text(max)}` :
    max === "" ? `from ${text(min)}` : `${text(min)} to ${text(max)}`;
  return `${column.title} ${range}`;
}

// Draw what matches the filters in front of all segments. `choose` gets the limits of the bar that is clicked.
function drawHistogram(bins, all, matching, column, choose) {
  const box = Object.assign(document.createElement("div"), { className: "bars", ariaHidden: "true" });
  const highest = Math.max(...all, 1), height = (count) => `${100 * Math.sqrt(count / highest)}%`;
  all.forEach((count, index) => {
    const bar = Object.assign(document.createElement("span"), {
      title: `${describeBin(bins, index, column)}: ${formatCount(matching[index])} of ${formatCount(count)} segments`,
    });
    for (const [name, value] of [["all", count], ["match", matching[index]]]) {
      const part = Object.assign(document.createElement("i"), { className: name });
      part.style.height = height(value);
      bar.append(part);
    }
    bar.addEventListener("click", () => choose(binLimits(bins, index)));
    box.append(bar);
  });
  return box;
}

// Draw the shares of the most frequent values.
function drawValues(values, column, choose) {
  const box = Object.assign(document.createElement("div"), { className: "shares", ariaHidden: "true" });
  const total = values.reduce((sum, [, count]) => sum + count, 0);
  for (const [value, count] of values.slice(0, 12)) {
    const part = Object.assign(document.createElement("i"), {
      title: `${formatValue(value, column)}: ${formatCount(count)} segments`, className: value === null ? "missing" : "",
    });
    part.style.flexGrow = count / total;
    part.addEventListener("click", () => choose(value));
    box.append(part);
  }
  return box;
}
