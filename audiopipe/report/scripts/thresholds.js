// The threshold explorer: every segment is judged anew by the limits that the reader sets, as score.py judges.
(() => {
  const root = document.currentScript.parentElement;
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const metric = Object.fromEntries(Object.entries(data.metrics).map(([name, text]) => [name, new Float32Array(bytes(text))]));
  const seconds = new Float32Array(bytes(data.seconds));
  const language = new Uint8Array(bytes(data.language));
  const excluded = new Uint8Array(bytes(data.excluded));
  const before = new Uint8Array(bytes(data.kept));
  const rows = [...root.querySelectorAll("[data-rule]")].map((row, order) => ({
    row, rule: data.rules[order],
    on: row.querySelector("input[type=checkbox]"),
    slide: row.querySelector("input[type=range]"),
    exact: row.querySelector("input[type=number]"),
    told: row.querySelector(".told"),
  }));
  const whole = (n) => n.toLocaleString("en-US");
  const share = (part, all) => (all ? (100 * part / all).toFixed(1) + " %" : "–");

  function judge() {
    const limits = rows.filter((r) => r.on.checked && r.exact.value !== "").map((r) => ({
      values: metric[r.rule.metric], limit: Number(r.exact.value), below: r.rule.below, r,
    }));
    const counts = data.rules.map(() => 0);
    const kept = data.languages.map(() => 0), all = data.languages.map(() => 0);
    let segments = 0, time = 0, back = 0, lost = 0;
    for (let i = 0; i < seconds.length; i++) {
      all[language[i]]++;
      let passes = !excluded[i];
      if (passes) for (const { values, limit, below, r } of limits) {
        // What does not exist is NaN, and a comparison with it is false: it condemns nobody.
        if (below ? values[i] < limit : values[i] > limit) { passes = false; counts[rows.indexOf(r)]++; break; }
      }
      if (passes) { segments++; time += seconds[i]; kept[language[i]]++; }
      if (passes && !before[i]) back++;
      if (!passes && before[i]) lost++;
    }
    show(segments, time, back, lost, kept, all, counts);
  }

  function show(segments, time, back, lost, kept, all, counts) {
    const put = (name, text) => { root.querySelector(`[data-out=${name}]`).textContent = text; };
    put("segments", `${whole(segments)} / ${whole(seconds.length)}`);
    put("share", share(segments, seconds.length));
    put("hours", (time / 3600).toFixed(2) + " h");
    put("change", `+${whole(back)} / −${whole(lost)}`);
    rows.forEach((r, order) => { r.told.textContent = r.on.checked ? `drops ${whole(counts[order])}` : "off"; });
    root.querySelectorAll("[data-language]").forEach((row, order) => {
      row.querySelector("i").style.width = (all[order] ? 100 * kept[order] / all[order] : 0) + "%";
      row.querySelector(".told").textContent = `${whole(kept[order])} / ${whole(all[order])} (${share(kept[order], all[order])})`;
    });
    put("parameters", rows.map((r) => `${r.rule.field}=${r.on.checked && r.exact.value !== "" ? r.exact.value : "None"}`).join("  "));
  }

  for (const r of rows) {
    r.slide.addEventListener("input", () => { r.exact.value = r.slide.value; r.on.checked = true; judge(); });
    r.exact.addEventListener("input", () => { r.slide.value = r.exact.value; r.on.checked = r.exact.value !== ""; judge(); });
    r.on.addEventListener("change", judge);
  }
  root.querySelector("button").addEventListener("click", () => {
    for (const r of rows) {
      r.on.checked = r.rule.limit !== null;
      r.exact.value = r.slide.value = r.rule.limit ?? r.rule.start;
    }
    judge();
  });
  judge();
})();
