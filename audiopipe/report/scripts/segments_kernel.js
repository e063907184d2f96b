// The kernel of a notebook as the source of a table of all segments.
function kernelSource(model, settings) {
  const waiting = new Map();
  let last = 0;
  const places = Object.fromEntries(settings.columns.map((column, index) => [column.name, index]));
  const receive = ({ id, error, ...answer }, buffers) => {
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (error) reject?.(new Error(error));
    else resolve?.({ ...answer, data: buffers?.[0] });
  };
  model.on("msg:custom", receive);
  const ask = (query, body) => new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    model.send({ id: last, query, ...body });
  });
  const where = ({ filters, onlyAudio }) => [
    ...filters.map(filterSql).filter(Boolean), ...(onlyAudio ? ["tar_offset IS NOT NULL"] : []),
  ].join(" AND ");
  const identity = (values) => Object.fromEntries(["language", "shard", "key"].map((name) => [name, values[places[name]]]));

  return {
    isSample: false,
    close: () => model.off("msg:custom", receive),
    page: ({ sort, descending, seed, offset, limit, ...query }) =>
      ask("page", { where: where(query), sort, descending, seed, offset, limit }),
    ranges: async (columns) => (await ask("ranges", { columns })).ranges,
    counts: async (bins, query) => (await ask("counts", { bins, where: where(query) })).counts,
    values: async (column, query) => (await ask("values", { column, where: where(query) })).values,
    hasAudio: (values) => values[places.tar_offset] !== null,
    audio: async (values) => {
      const { type, data } = await ask("audio", identity(values));
      return new Blob([data], { type });
    },
    keys: async (query) => new Blob([(await ask("keys", { where: where(query) })).data], { type: "text/csv" }),
  };
}

export default {
  render({ model, el }) {
    const settings = model.get("settings"), source = kernelSource(model, settings);
    const root = Object.assign(document.createElement("div"), { className: "browse" });
    el.classList.add("ap");
    el.append(root);
    const close = segmentTable(root, settings, source);
    return () => { close(); source.close(); };
  },
};
