// The controls of one filter.
function filterEditor(filter, { values, changed, remove }) {
  const { column } = filter;
  const close = element("button", { type: "button", textContent: "✕", ariaLabel: `Remove the filter of ${column.title}`, onclick: remove });
  const box = element("fieldset", { title: column.meaning }, element("legend", { textContent: column.title }));
  const update = (changes, delay = 0) => { Object.assign(filter, changes); changed(delay); };
  if (column.kind === "number") {
    const field = (name, label) => element("input", {
      type: "number", step: "any", value: filter[name], placeholder: label, ariaLabel: `${column.title} ${label}`,
      oninput: (event) => update({ [name]: event.target.value, ...(name === "max" ? { below: false } : {}) }, 250),
    });
    const missing = element("input", { type: "checkbox", checked: filter.missing, onchange: (event) => update({ missing: event.target.checked }) });
    box.append(field("min", "min"), filter.below ? " to below " : " to ", field("max", "max"),
      element("label", { className: "choice" }, missing, " or missing"));
  } else if (column.kind === "text") {
    box.append("contains ", element("input", {
      type: "text", value: filter.contains, ariaLabel: `${column.title} contains`,
      oninput: (event) => update({ contains: event.target.value }, 250),
    }));
  } else {
    const list = element("div", { className: "options" }, "…");
    box.append(list);
    values(column.name).then((counts) => list.replaceChildren(...counts.map(([value, count]) => {
      const choice = element("input", {
        type: "checkbox", checked: filter.values.includes(value),
        onchange: (event) => update({
          values: event.target.checked ? [...filter.values, value] : filter.values.filter((other) => other !== value),
        }),
      });
      const text = value === null ? MISSING : formatValue(value, column);
      return element("label", { className: "choice" }, choice, " ", element("bdi", { textContent: text }), " ", element("small", { textContent: formatCount(count) }));
    })), (error) => list.replaceChildren(error.message));
  }
  box.append(close);
  return box;
}
