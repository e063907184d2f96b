// The segment table: search, filters, columns, order, pages, players and exports, on any source of rows.
function element(tag, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties, node = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Handle an event of the document for as long as `root` exists: a notebook replaces an output without a word, and may
// also show one again that it took out of the document. Returns a function that stops it.
function listenWeakly(root, name, handle) {
  root[name] = handle;
  const target = new WeakRef(root);
  const listen = (event) => {
    const handle = target.deref()?.[name];
    if (handle) handle(event);
    else document.removeEventListener(name, listen);
  };
  document.addEventListener(name, listen);
  return () => document.removeEventListener(name, listen);
}

// Build the table in `root`; return a function that detaches it from the document.
function segmentTable(root, settings, source) {
  const columns = settings.columns, byName = Object.fromEntries(columns.map((column) => [column.name, column]));
  const places = Object.fromEntries(columns.map((column, index) => [column.name, index]));
  const start = () => ({
    filters: byName.kept ? [{ ...newFilter(byName.kept), values: [true] }] : [],
    search: "", sort: null, descending: false, seed: null, offset: 0, limit: 25, onlyAudio: false,
  });
  const state = start();
  const shown = new Set(columns.filter((column) => column.is_shown).map((column) => column.name));
  const ranges = {}, bins = {}, allCounts = {};
  let playing = null, latest = 0, timer = 0;

  const searchBox = element("input", { type: "search", placeholder: "Search in the text", ariaLabel: "Search in the text" });
  const random = element("button", { type: "button", textContent: "Random order" });
  const audioBox = element("input", { type: "checkbox" });
  const audioLabel = element("label", { className: "choice" }, audioBox, source.isSample ? " with audio here" : " with audio");
  const adder = element("select", { ariaLabel: "Add a filter" });
  const chooser = element("details", { className: "menu" }, element("summary", { textContent: "Columns" }));
  const reset = element("button", { type: "button", textContent: "Reset" });
  const filterList = element("div", { className: "filters" });
  const status = element("p", { className: "status", attributes: { role: "status", "aria-live": "polite" } });
  const caption = element("caption", { textContent: "Segments" });
  const head = element("thead"), body = element("tbody"), table = element("table", {}, caption, head, body);
  const scroller = element("div", { className: "scroll wide", tabIndex: 0, attributes: { role: "region", "aria-label": "Segments" } }, table);
  const pager = element("div", { className: "pager" });
  const command = element("code"), copy = element("button", { type: "button", textContent: "Copy the command" });
  const download = element("button", { type: "button" });
  root.replaceChildren(
    element("p", { className: "dim", textContent: settings.note }),
    element("div", { className: "tools" }, ...(byName.text ? [searchBox] : []), adder, random, audioLabel, chooser, reset),
    filterList, status, scroller, pager,
    element("p", { className: "dim", textContent: "A copy of all segments of the dataset that match and have audio:" }),
    element("pre", { className: "command" }, command),
    element("p", { className: "tools" }, copy, download),
  );

  const allFilters = () => [...state.filters,
    ...(state.search ? [{ column: byName.text, contains: state.search }] : [])];
  const query = () => ({ ...state, filters: allFilters() });
  const everything = { filters: [], onlyAudio: false };
  // The reason is worth a column only where segments that were dropped are shown.
  const showsDropped = () => !state.filters.some(({ column, values }) => column === byName.kept && values.join() === "true");
  const visible = () => columns.filter(({ name }) => shown.has(name) || (name === "drop_reason" && showsDropped()));

  // Change the state, go back to the first page and read it, at once or when the typing pauses.
  function change(changes, delay = 0) {
    Object.assign(state, { offset: 0, ...changes });
    clearTimeout(timer);
    timer = setTimeout(refresh, delay);
  }

  async function refresh() {
    const number = ++latest;
    const busy = setTimeout(() => { status.textContent = "Reading …"; }, 400);
    const slow = setTimeout(() => {
      status.textContent = "The kernel does not answer yet. If it was stopped, execute the cell again.";
    }, 8000);
    try {
      const page = await source.page(query());
      if (number !== latest) return;
      showRows(page);
      showStatus(page);
      showCommand();
      await showHeadings(number);
    } catch (error) {
      if (number === latest) status.textContent = error.message;
    } finally {
      clearTimeout(busy);
      clearTimeout(slow);
    }
  }

  function showStatus({ total, seconds, audio }) {
    const of = source.isSample && settings.rows.length < settings.total ? "segments of the sample match" : "segments match";
    const hours = seconds < 60 ? `${seconds.toFixed(1)} s` : seconds < 3600 ? `${(seconds / 60).toFixed(1)} min` :
      `${(seconds / 3600).toFixed(2)} h`;
    status.textContent = `${formatCount(total)} ${of}, ${hours}; ${formatCount(audio)} with audio${source.isSample ? " here" : ""}.`;
    const end = Math.min(state.offset + state.limit, total);
    const button = (text, label, offset) => element("button", {
      type: "button", textContent: text, ariaLabel: label, disabled: offset < 0 || offset >= Math.max(total, 1) || offset === state.offset,
      onclick: () => { change({ offset }); scroller.scrollIntoView({ block: "nearest" }); },
    });
    const last = Math.max(0, Math.floor((total - 1) / state.limit) * state.limit);
    pager.replaceChildren(
      button("«", "First page", 0), button("‹", "Previous page", state.offset - state.limit),
      element("span", { textContent: total ? `${formatCount(state.offset + 1)} to ${formatCount(end)} of ${formatCount(total)}` : "none" }),
      button("›", "Next page", state.offset + state.limit), button("»", "Last page", last),
    );
    download.textContent = `Download ${formatCount(total)} keys${of.includes("sample") ? " of the sample" : ""} (CSV)`;
    download.disabled = !total;
  }

  function showCommand() {
    const where = [...settings.conditions, ...allFilters().map(filterSql).filter(Boolean)].join(" AND ") || "true";
    command.textContent = `audiopipe select ${quoteWord(settings.output)} ${quoteWord(settings.selection)}` +
      `${settings.languages ? ` --languages ${quoteWord(settings.languages)}` : ""} --where ${quoteWord(where)}`;
  }

  // Headings sort; below them is a histogram of the values, or the shares of the values that can be chosen from.
  async function showHeadings(number) {
    const show = visible();
    if (!head.childElementCount || head.dataset.columns !== show.map((column) => column.name).join()) buildHeadings(show);
    for (const cell of head.querySelectorAll("th[data-column]")) {
      const isSorted = cell.dataset.column === state.sort;
      if (isSorted) cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const numbers = show.filter((column) => column.kind === "number");
    const unknown = numbers.map((column) => column.name).filter((name) => !(name in ranges));
    if (unknown.length) Object.assign(ranges, await source.ranges(unknown));
    for (const column of numbers) if (ranges[column.name]) bins[column.name] ??= roundBins(ranges[column.name], column);
    const drawn = Object.fromEntries(numbers.filter(({ name }) => bins[name]).map(({ name }) => [name, bins[name]]));
    const fresh = Object.fromEntries(Object.entries(drawn).filter(([name]) => !(name in allCounts)));
    if (number !== latest) return;
    if (Object.keys(fresh).length) Object.assign(allCounts, (await source.charts(fresh, [], everything)).counts);
    if (number !== latest) return;
    const choices = show.filter(({ kind }) => ["category", "flag"].includes(kind)).map(({ name }) => name);
    const { counts, values } = await source.charts(drawn, choices, query());
    if (number !== latest) return;
    for (const column of show) {
      const place = head.querySelector(`[data-chart="${CSS.escape(column.name)}"]`);
      if (drawn[column.name]) {
        const pair = [allCounts[column.name], counts[column.name]];
        place.replaceChildren(drawHistogram(bins[column.name], ...pair, column, (limits) => chooseBin(column, limits)));
      } else if (values[column.name]) {
        place.replaceChildren(drawValues(values[column.name], column, (value) => setFilter({ ...newFilter(column), values: [value] })));
      }
    }
  }

  function buildHeadings(show) {
    head.dataset.columns = show.map((column) => column.name).join();
    head.replaceChildren(element("tr", {}, element("th", { scope: "col" }, element("span", { className: "hidden", textContent: "play" })),
      ...show.map((column) => {
        const button = element("button", {
          type: "button", className: "sort", textContent: column.title, title: [column.name, column.meaning].filter(Boolean).join(": "),
          onclick: () => sortBy(column),
        });
        const chart = element("div", { attributes: { "data-chart": column.name } });
        const kind = column.kind === "number" ? "" : "l";
        return element("th", { scope: "col", className: kind, attributes: { "data-column": column.name } }, button, chart);
      })));
  }

  function sortBy({ name, kind }) {
    const first = kind === "number";  // of a number, the highest first
    if (state.sort !== name) change({ sort: name, descending: first, seed: null });
    else if (state.descending === first) change({ descending: !first });
    else change({ sort: null, descending: false });
  }

  function showRows({ rows }) {
    const show = visible(), wasPlaying = playing?.player && !playing.player.paused;
    playing?.detail.remove();
    body.replaceChildren(...rows.map((values) => buildRow(values, show)));
    const index = rows.findIndex((values) => values[places.key] === playing?.key);
    if (index >= 0) {  // the open segment is on this page too
      const row = body.rows[index], button = row.querySelector(".play");
      Object.assign(playing, { row, button });
      playing.detail.firstChild.colSpan = show.length + 1;
      open();
      if (wasPlaying) playing.player.play();
    } else stop();
    if (!rows.length) {
      const text = "No segment matches. Remove a filter.";
      body.append(element("tr", {}, element("td", { className: "l", colSpan: show.length + 1, textContent: text })));
    }
  }

  function buildRow(values, show) {
    const key = values[places.key], hasAudio = source.hasAudio(values);
    const button = element("button", {
      type: "button", className: "play", textContent: hasAudio ? "▶" : "⋯",
      ariaLabel: `${hasAudio ? "Play" : "Show"} ${key}`, ariaExpanded: "false",
    });
    const row = element("tr", { className: "segment" }, element("td", {}, button), ...show.map((column) => {
      const value = values[places[column.name]], isText = column.kind !== "number";
      const cell = element("td", { className: column.name === "text" ? "text" : isText ? "l" : "" });
      if (column.name === "text" && value !== null) cell.append(element("span", {}, ...highlight(value, state.search)));
      else cell.textContent = formatValue(value, column);
      return cell;
    }));
    row.addEventListener("click", () => !getSelection().toString() && toggle(row, values, button, show.length + 1));
    row.addEventListener("keydown", (event) => {
      const other = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      let next = other && row[other];
      while (next && !next.matches(".segment")) next = next[other];
      if (!next) return;
      event.preventDefault();
      next.querySelector(".play").focus();
    });
    return row;
  }

  function highlight(text, part) {
    if (!part) return [text];
    const pattern = new RegExp(`(${part.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")})`, "iu");
    return text.split(pattern).map((piece, index) => (index % 2 ? element("mark", { textContent: piece }) : piece));
  }

  function stop() {
    playing?.player?.pause();
    if (playing?.player) URL.revokeObjectURL(playing.player.src);
    playing?.detail.remove();
    playing?.button.setAttribute("aria-expanded", "false");
    playing?.row.classList.remove("open");
    playing = null;
  }

  function open() {
    playing.row.after(playing.detail);
    playing.row.classList.add("open");
    playing.button.setAttribute("aria-expanded", "true");
  }

  // Open a segment below its row and play it; close it if it is open.
  async function toggle(row, values, button, width) {
    const wasOpen = playing?.row === row;
    stop();
    if (wasOpen) return;
    const panel = element("div", { className: "detail" });
    const detail = element("tr", { className: "more" }, element("td", { className: "l", colSpan: width }, panel));
    const current = playing = { key: values[places.key], row, button, detail, player: null };
    open();
    const place = element("div");
    panel.append(place, describe(values));
    if (!source.hasAudio(values)) {
      place.append(element("p", { className: "dim", textContent: missingAudio(values) }));
      return;
    }
    try {
      const sound = await soundPanel(await source.audio(values), settings.rate_hz, values[places.key]);
      if (playing !== current) {
        URL.revokeObjectURL(sound.player.src);
        return;
      }
      current.player = sound.player;
      place.append(sound.panel);
      await sound.player.play().catch(() => {});  // a browser may want a click on the player first
    } catch (error) {
      place.append(element("p", { textContent: `The audio cannot be read: ${error.message}` }));
    }
  }

  function missingAudio(values) {
    if (values[places.tar_offset] === null) return "This segment was dropped. The dataset has no audio of it.";
    return `This page has no audio of this segment. In Python: audiopipe.Dataset(${JSON.stringify(settings.output)})["${values[places.key]}"].audio`;
  }

  function describe(values) {
    const text = values[places.text], known = columns.filter(({ name }) => name !== "text" && values[places[name]] !== null);
    const list = (items) => element("dl", {}, ...items.map((column) => element("div", { title: column.meaning },
      element("dt", { textContent: column.title }),
      element("dd", { textContent: formatValue(values[places[column.name]], column) }))));
    return element("div", {}, ...(text ? [element("p", { className: "words", textContent: text })] : []),
      list(known.filter((column) => !column.is_origin)),
      element("details", {}, element("summary", { textContent: "Origin" }), list(known.filter((column) => column.is_origin))));
  }

  function chooseBin(column, { min, max }) {
    setFilter({ ...newFilter(column), min, max, below: max !== "" });
  }

  function setFilter(filter) {
    const index = state.filters.findIndex((other) => other.column === filter.column);
    state.filters = index < 0 ? [...state.filters, filter] : state.filters.with(index, filter);
    showFilters();
    change({});
  }

  function showFilters() {
    filterList.replaceChildren(...state.filters.map((filter) => filterEditor(filter, {
      values: async (name) => (await source.charts({}, [name], everything)).values[name],
      changed: (delay) => change({}, delay),
      remove: () => { state.filters = state.filters.filter((other) => other !== filter); showFilters(); change({}); },
    })));
    const free = columns.filter((column) => !state.filters.some((filter) => filter.column === column));
    adder.replaceChildren(element("option", { value: "", textContent: "Add a filter" }),
      ...free.map((column) => element("option", { value: column.name, textContent: column.title })));
  }

  function showChooser() {
    chooser.replaceChildren(chooser.firstChild, element("div", { className: "options" }, ...columns.map((column) => {
      const box = element("input", { type: "checkbox", checked: shown.has(column.name) });
      box.addEventListener("change", () => {
        if (box.checked) shown.add(column.name);
        else shown.delete(column.name);
        change({ offset: state.offset });
      });
      return element("label", { className: "choice", title: column.meaning }, box, ` ${column.title}`);
    })));
  }

  // Return what a bar or a cell of a figure stands for: columns with the edges of their bins and the limits of one.
  function figureLimits({ data, from, to, limits }) {
    const column = columns.find(({ title }) => title === data.x);
    if (data.kind === "bins") return column ? [[column, data.edges, [from, to]]] : [];
    if (data.kind !== "cells" || !data.columns.length || !data.columns.every((name) => byName[name])) return [];
    return data.columns.map((name, axis) => [byName[name], [data.x_edges, data.y_edges][axis], limits[axis]]);
  }

  // The outer bins have all values beyond; `wider` extends the limits by as many widths of the bin.
  function limitFilter([column, edges, [from, to]], wider) {
    const extra = wider * (to - from), low = from - extra, high = to + extra, last = edges.at(-1);
    return { ...newFilter(column), min: low <= edges[0] ? "" : decimalOf(low), max: high >= last ? "" : decimalOf(high), below: true };
  }

  // List the segments behind a bar or a cell of a figure and play the first one.
  async function showExamples({ detail }) {
    const limits = figureLimits(detail);
    if (detail.isHandled || !limits.length || !root.isConnected) return;
    detail.isHandled = true;
    Object.assign(state, start());
    const language = detail.data.kind === "bins" && detail.data.row === "language" ? detail.lines[0] : "";
    const spoken = language && (await source.charts({}, ["language"], everything)).values.language.some(([name]) => name === language);
    const others = spoken ? [{ ...newFilter(byName.language), values: [language] }] : [];
    let wider = 0;
    for (const next of [0, 0.5, 1, 2, 4, 8, 16, 32, 64]) {
      wider = next;
      state.filters = [...limits.map((limit) => limitFilter(limit, wider)), ...others];
      // A sample has no segment of most cells: the nearest ones that can be heard are examples too.
      if (!source.isSample || (await source.page({ ...query(), onlyAudio: true })).total) break;
    }
    searchBox.value = "";
    audioBox.checked = false;
    showFilters();
    clearTimeout(timer);
    stop();
    root.scrollIntoView({ block: "start" });
    await refresh();
    if (wider) status.textContent += " The sample has no audio from there, so the nearest segments are shown.";
    (body.querySelector("button.play[aria-label^=Play]") ?? body.querySelector("button.play"))?.click();
  }

  searchBox.addEventListener("input", () => change({ search: searchBox.value.trim() }, 250));
  random.addEventListener("click", () => change({ seed: (state.seed ?? 0) + 1, sort: null }));
  audioBox.addEventListener("change", () => change({ onlyAudio: audioBox.checked }));
  adder.addEventListener("change", () => {
    setFilter(newFilter(byName[adder.value]));
    filterList.lastElementChild.querySelector("input")?.focus();
  });
  reset.addEventListener("click", () => {
    searchBox.value = "";
    audioBox.checked = false;
    Object.assign(state, start());
    showFilters();
    change({});
  });
  copy.addEventListener("click", async () => {
    if (navigator.clipboard) await navigator.clipboard.writeText(command.textContent);
    else {  // a browser has it on localhost and over HTTPS only
      getSelection().selectAllChildren(command);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy the command"; }, 2000);
  });
  download.addEventListener("click", async () => {
    try {
      const link = element("a", { href: URL.createObjectURL(await source.keys(query())), download: "segment-keys.csv" });
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      status.textContent = error.message;
    }
  });
  const unlisten = listenWeakly(root, "chart-select", showExamples);
  showFilters();
  showChooser();
  refresh();
  return () => { stop(); unlisten(); };
}
