// Figures: the values under the pointer, and buttons that save a figure as PNG and its values as CSV.
(() => {
  if (window.audiopipeCharts) return;  // a notebook may show this script twice
  window.audiopipeCharts = true;
  const format = (value) => (typeof value !== "number" ? value ?? "–"
    : value.toLocaleString("en-US", Number.isInteger(value) ? {} : { maximumSignificantDigits: 4 }).replace("-", "−"));
  const span = (from, to) => `${format(from)} to ${format(to)}`;
  const parsed = new WeakMap();
  const read = (figure) => {
    if (!parsed.has(figure)) {
      const script = figure.querySelector("script.chart");
      parsed.set(figure, script && JSON.parse(script.textContent));
    }
    return parsed.get(figure);
  };
  const nearest = (sorted, value) => {
    let best = 0;
    sorted.forEach((item, index) => { if (Math.abs(item - value) < Math.abs(sorted[best] - value)) best = index; });
    return best;
  };
  const binOf = (edges, value) => {
    const index = edges.findIndex((edge) => edge > value) - 1;
    return index >= 0 ? index : -1;
  };

  // Each returns what is at a place: the lines of the tip, and the box to mark, with x in data and y in pixels.
  const FIND = {
    bins(data, x, y, band) {
      const bin = binOf(data.edges, x);
      if (bin < 0) return null;
      const lines = Object.entries(data.series).map(([name, rows]) => `${name}: ${format(rows[band][bin])}`);
      const [from, to] = [data.edges[bin], data.edges[bin + 1]];
      return { lines: [data.rows[band], `${data.x}: ${span(from, to)}`, ...lines], from, to, band };
    },
    points(data, x) {
      const index = nearest(data.at, x), at = data.at[index];
      const lines = Object.entries(data.series).map(([name, values]) => `${name}: ${format(values[index])}`);
      return { lines: [`${data.x}: ${format(at)}`, ...lines], from: at, to: at, band: 0 };
    },
    items(data, x, y, band) {
      const item = data.items.find(([row, from, to]) => row === band && from <= x && x <= to);
      if (!item) return null;
      const values = item[3].slice(1).map((value, index) => `${data.columns[index + 1]}: ${format(value)}`);
      const row = data.rows.length ? [`${data.row}: ${data.rows[band]}`] : [];
      return { lines: [item[3][0], ...row, ...values], from: item[1], to: item[2], band };
    },
    cells(data, x, y, band, share) {
      const column = binOf(data.x_edges, x), [low, high] = [data.y_edges[0], data.y_edges.at(-1)];
      const row = binOf(data.y_edges, high - share * (high - low));
      const cell = data.cells.find(([i, j]) => i === column && j === row);
      if (!cell) return null;
      const limits = [[data.x_edges[column], data.x_edges[column + 1]], [data.y_edges[row], data.y_edges[row + 1]]];
      return {
        lines: [`${data.x}: ${span(...limits[0])}`, `${data.y}: ${span(...limits[1])}`,
          ...data.names.map((name, index) => `${name}: ${format(cell[index + 2])}`)],
        from: limits[0][0], to: limits[0][1], band,
        rows: [1 - (limits[1][1] - low) / (high - low), 1 - (limits[1][0] - low) / (high - low)], limits,
      };
    },
  };

  function find(figure, event) {
    const data = read(figure), svg = figure.querySelector("svg");
    if (!data || !svg) return null;
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
    const [left, right] = data.frame.x, band = data.bands.findIndex(([top, bottom]) => top <= py && py <= bottom);
    if (px < left - 2 || px > right + 2 || band < 0) return null;
    const perPixel = (data.frame.to - data.frame.from) / (right - left);
    const x = data.frame.from + (px - left) * perPixel, [top, bottom] = data.bands[band];
    const hit = FIND[data.kind](data, x, py, band, (py - top) / (bottom - top));
    if (!hit) return null;
    const at = (value) => left + (value - data.frame.from) / perPixel;
    const width = Math.max(at(hit.to) - at(hit.from), 1.5), rows = hit.rows ?? [0, 1];
    return { ...hit, svg, mark: [Math.max(left, at(hit.from)), top + rows[0] * (bottom - top), width,
      Math.max((rows[1] - rows[0]) * (bottom - top), 1)] };
  }

  let tip = null, mark = null;
  function hide() {
    tip?.remove();
    mark?.remove();
    tip = mark = null;
  }
  function show(event, hit) {
    hide();
    mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    ["x", "y", "width", "height"].forEach((name, index) => mark.setAttribute(name, hit.mark[index]));
    mark.setAttribute("style", "fill:currentColor;opacity:.22;pointer-events:none");
    mark.setAttribute("class", "chart-mark");
    hit.svg.append(mark);
    tip = document.createElement("div");
    tip.setAttribute("role", "tooltip");
    tip.style.cssText = "position:fixed;z-index:99;pointer-events:none;background:#1d2329;color:#fff;font:12px/1.4 " +
      "system-ui,sans-serif;padding:5px 9px;border-radius:5px;max-width:300px;box-shadow:0 1px 6px #0006";
    hit.lines.forEach((line, index) => {
      const part = document.createElement(index ? "div" : "b");
      part.textContent = line;
      tip.append(part);
    });
    document.body.append(tip);
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4)) + "px";
    tip.style.top = (event.clientY + height + 20 > innerHeight ? event.clientY - height - 12 : event.clientY + 16) + "px";
  }

  const TABLES = {
    bins: (data) => [[data.row, `${data.x} from`, "to", ...Object.keys(data.series)],
      ...data.rows.flatMap((name, row) => data.edges.slice(1).map((to, bin) =>
        [name, data.edges[bin], to, ...Object.values(data.series).map((rows) => rows[row][bin])]))],
    points: (data) => [[data.x, ...Object.keys(data.series)],
      ...data.at.map((at, index) => [at, ...Object.values(data.series).map((values) => values[index])])],
    items: (data) => (data.rows.length
      ? [[data.row, ...data.columns], ...data.items.map((item) => [data.rows[item[0]], ...item[3]])]
      : [data.columns, ...data.items.map((item) => item[3])]),
    cells: (data) => [[`${data.x} from`, "to", `${data.y} from`, "to", ...data.names],
      ...data.cells.map(([column, row, ...counts]) => [data.x_edges[column], data.x_edges[column + 1],
        data.y_edges[row], data.y_edges[row + 1], ...counts])],
  };
  // A text that a spreadsheet would compute starts with an apostrophe.
  const quote = (value) => {
    const text = value == null ? "" : typeof value === "string" && /^[=+@\t\r-]/.test(value) ? `'${value}` : `${value}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const toCsv = (data) => TABLES[data.kind](data).map((row) => row.map(quote).join(",")).join("\r\n") + "\r\n";

  function save(blob, name) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function savePng(figure, name) {
    hide();
    const svg = figure.querySelector("svg"), copy = svg.cloneNode(true), style = getComputedStyle(svg);
    const { width, height } = svg.viewBox.baseVal, background = getComputedStyle(document.body).backgroundColor;
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("style", `color:${style.color};font-family:${style.fontFamily.replaceAll('"', "'")}`);
    const image = new Image();
    image.onload = () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
      const context = canvas.getContext("2d");
      context.fillStyle = /^rgba\(.*, 0\)$/.test(background) ? "#ffffff" : background;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, `${name}.png`), "image/png");
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(copy));
  }

  function addButtons(figure) {
    figure.classList.add("chart");
    const title = figure.querySelector("figcaption b")?.textContent || "figure";
    const name = title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    const buttons = Object.assign(document.createElement("span"), { className: "save" });
    const add = (label, action) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.title = button.ariaLabel = `save “${title}” as ${label}`;
      button.addEventListener("click", action);
      buttons.append(button);
    };
    add("PNG", () => savePng(figure, name));
    add("CSV", () => save(new Blob(["\ufeff" + toCsv(read(figure))], { type: "text/csv" }), `${name}.csv`));
    figure.append(buttons);
  }

  const figureOf = (event) => event.target.closest?.(".ap figure.chart");
  const look = (event) => {
    const figure = figureOf(event), hit = figure && find(figure, event);
    if (hit) show(event, hit); else hide();
  };
  document.addEventListener("pointermove", look);
  document.addEventListener("pointerdown", look);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  // Lets another part of a page show what is behind a bar or a cell. The first tap on a place only shows its values.
  let tapped = "";
  document.addEventListener("click", (event) => {
    const figure = figureOf(event), hit = figure && find(figure, event), place = hit?.lines.join();
    const isFirstTap = event.pointerType === "touch" && place !== tapped;
    tapped = place;
    if (!hit || isFirstTap) return;
    figure.dispatchEvent(new CustomEvent("chart-select", { bubbles: true, detail: { ...hit, data: read(figure) } }));
  });
  const prepare = () => document.querySelectorAll(".ap figure:not(.chart)").forEach((figure) => {
    if (figure.querySelector("script.chart")) addButtons(figure);
  });
  prepare();
  new MutationObserver(prepare).observe(document.body, { childList: true, subtree: true });
})();
