// The threshold explorer: applies the limits that the reader sets to every segment, as audiopipe/pipeline/score.py does.
(() => {
  const root = document.currentScript.parentElement;
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const metrics = Object.fromEntries(
    Object.entries(data.metrics).map(([name, text]) => [name, new Float32Array(decode(text))]));
  const durations = new Float32Array(decode(data.duration_s));
  const language = new Uint16Array(decode(data.language));
  const excluded = new Uint8Array(decode(data.excluded));
  const keptByRun = new Uint8Array(decode(data.kept));
  const hasAudio = new Uint8Array(decode(data.has_audio));
  const rows = [...root.querySelectorAll("[data-threshold]")].map((row, index) => ({
    slider: data.sliders[index],
    checkbox: row.querySelector("input[type=checkbox]"),
    range: row.querySelector("input[type=range]"),
    value: row.querySelector("input[type=number]"),
    count: row.querySelector(".count"),
  }));
  const format = (count) => count.toLocaleString("en-US");
  const percent = (part, total) => (total ? (100 * part / total).toFixed(1) + " %" : "–");
  const isOn = (row) => row.checkbox.checked && row.value.value !== "";

  function update() {
    const limits = rows.map((row, index) => ({
      // The tables have float32, and DuckDB compares it with a limit of that precision.
      index, values: metrics[row.slider.metric], limit: Math.fround(Number(row.value.value)),
      isMinimum: row.slider.is_minimum,
    })).filter(({ index }) => isOn(rows[index]));
    const drops = rows.map(() => 0);
    const kept = data.languages.map(() => 0), total = data.languages.map(() => 0);
    let segments = 0, seconds = 0, gained = 0, lost = 0, selected = 0, selectedSeconds = 0;
    for (let i = 0; i < durations.length; i++) {
      total[language[i]]++;
      let passes = !excluded[i];
      if (passes) for (const { index, values, limit, isMinimum } of limits) {
        // A missing value is NaN. Comparisons with NaN are false, so it never drops a segment.
        if (isMinimum ? values[i] < limit : values[i] > limit) { passes = false; drops[index]++; break; }
      }
      if (passes) { segments++; seconds += durations[i]; kept[language[i]]++; }
      if (passes && hasAudio[i]) { selected++; selectedSeconds += durations[i]; }
      if (passes && !keptByRun[i]) gained++;
      if (!passes && keptByRun[i]) lost++;
    }
    show({ segments, seconds, gained, lost, kept, total, drops, selected, selectedSeconds });
  }

  function show({ segments, seconds, gained, lost, kept, total, drops, selected, selectedSeconds }) {
    const set = (name, text) => { root.querySelector(`[data-result=${name}]`).textContent = text; };
    set("segments", `${format(segments)} / ${format(durations.length)}`);
    set("share", percent(segments, durations.length));
    set("hours", (seconds / 3600).toFixed(2) + " h");
    set("change", `+${format(gained)} / −${format(lost)}`);
    set("selected", `${format(selected)} (${(selectedSeconds / 3600).toFixed(2)} h)`);
    rows.forEach((row, index) => {
      row.count.textContent = row.checkbox.checked ? `drops ${format(drops[index])}` : "off";
    });
    root.querySelectorAll("[data-language]").forEach((row, index) => {
      row.querySelector("i").style.width = (total[index] ? 100 * kept[index] / total[index] : 0) + "%";
      row.querySelector(".count").textContent =
        `${format(kept[index])} / ${format(total[index])} (${percent(kept[index], total[index])})`;
    });
    set("select", `audiopipe select ${quote(data.output)} ${quote(data.selection)}` +
      (data.chosen ? ` --languages ${quote(data.chosen)}` : "") + ` --where ${quote(where())}`);
    set("papermill", `papermill notebooks/select.ipynb select.ipynb -p output ${quote(data.output)}` +
      ` -p dest ${quote(data.selection)}` + (data.chosen ? ` -p languages ${quote(data.chosen)}` : "") +
      ` -p where ${quote(where())}`);
    set("parameters", parameters().join("  "));
  }

  // DuckDB takes 1e-3 as a double, but 0.001 in the precision of the column.
  const plain = (text) => (/e/i.test(text) ? Number(text).toFixed(15).replace(/\.?0+$/, "") : text);
  const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const condition = ({ slider, value }) => `${slider.column} ${slider.is_minimum ? ">=" : "<="} ${plain(value.value)}`;

  // `select` takes a segment only if the condition is true; here, as in a run, a missing value drops nothing.
  function where() {
    const parts = rows.filter(isOn).map((row) => `coalesce(${condition(row)}, true)`);
    if (data.scope) parts.unshift(data.scope);
    const hasDroppedAudio = hasAudio.some((audio, i) => audio && !keptByRun[i]);
    return parts.join(" AND ") || (hasDroppedAudio ? "true" : "kept");
  }

  function parameters() {
    const named = rows.filter((row) => row.slider.reason);
    const conditions = rows.filter((row) => !row.slider.reason && isOn(row)).map(condition);
    if (data.keep_if) conditions.unshift(`(${data.keep_if})`);
    return [...named.map((row) => `${row.slider.parameter}=${isOn(row) ? row.value.value : "None"}`),
      ...(conditions.length ? [`keep_if=${quote(conditions.join(" AND "))}`] : [])];
  }

  for (const row of rows) {
    row.range.addEventListener("input", () => {
      row.value.value = row.range.value;
      row.checkbox.checked = true;
      update();
    });
    row.value.addEventListener("input", () => {
      row.range.value = row.value.value;
      row.checkbox.checked = row.value.value !== "";
      update();
    });
    row.checkbox.addEventListener("change", update);
  }
  root.querySelector("button").addEventListener("click", () => {
    for (const row of rows) {
      row.checkbox.checked = row.slider.limit !== null;
      row.value.value = row.range.value = row.slider.limit ?? row.slider.start;
    }
    update();
  });
  update();
})();
