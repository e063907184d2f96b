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
    page: ({ sort, descending, seed, offset, limit, ...query }) =>
      ask("page", { where: where(query), sort, descending, seed, offset, limit }),
    ranges: async (columns) => (await ask("ranges", { columns })).ranges,
    charts: (bins, values, query) => ask("charts", { bins, values, where: where(query) }),
    hasAudio: (values) => values[places.tar_offset] !== null,
    audio: async (values) => {
      const { type, data } = await ask("audio", identity(values));
      return new Blob([data], { type });
    },
    keys: async (query) => new Blob([(await ask("keys", { where: where(query) })).data], { type: "text/csv" }),
  };
}

// The widget has no view: it takes over the table that the cell's output has as HTML, so that the output can be saved,
// and shows its sample where no kernel is.
export default {
  initialize({ model }) {
    const settings = model.get("settings"), kernel = [settings, kernelSource(model, settings)];
    window.audiopipeTables = { ...window.audiopipeTables, [settings.id]: kernel };
    for (const root of document.querySelectorAll(`.browse[data-table="${settings.id}"]`)) root.upgrade?.(...kernel);
  },
};
