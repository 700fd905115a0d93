// Pages of `drydock plot`.
const plotPage = (data, page) => {
  const name = { requests: "Requests of a simulation", timeline: "A deployment over time", accuracy: "Predicted against measured" }[data.kind];
  document.title = `Drydock: ${data.file}`;
  page.append(el("header", null, el("p", { class: "eyebrow" }, "Drydock plot"), el("h1", { id: "answer" }, name), el("p", { class: "quiet" }, `${data.file}, ${counted(data.rows, "row")}`)));
  page.append(...{ requests: requestsSections, timeline: timelineSections, accuracy: accuracySections }[data.kind](data));
};

const lineSet = (label, points, tint, more) => ({ label, data: points, borderColor: colour(tint), backgroundColor: colour(tint), borderWidth: 2, pointRadius: 0, pointHitRadius: 6, pointStyle: "line", ...more });

const requestsSections = (data) => {
  const { curves, windows, dots } = data;
  const times = [["TTFT", "ttft_ms"], ["TPOT", "tpot_ms"], ["Whole request", "latency_ms"], ["Waiting for admission", "queue_ms"]];
  const overTime = (title, key, column) => figure({
    title, label: `${title} by time of arrival`,
    make: () => ({
      type: "line",
      data: { datasets: [
        lineSet("p95", windows.map((w) => ({ x: w.t, y: w[`${key}_p95`] })), "plan-2"),
        lineSet("p50", windows.map((w) => ({ x: w.t, y: w[`${key}_p50`] })), "plan-1"),
        { label: "requests", quiet: true, data: dots.map((dot) => ({ x: dot[0], y: dot[column] })), showLine: false, pointRadius: 1.6, pointHitRadius: 0, pointStyle: "circle", backgroundColor: faint(colour("analytic"), 0.45), borderColor: faint(colour("analytic"), 0.45) },
      ] },
      options: { parsing: false, interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: { x: axis("arrival [s]", { type: "linear", ticks: shortTicks }), y: axis(`${title} [ms]`, { min: 0, ticks: shortTicks }) },
        plugins: { legend: { position: "bottom" }, tooltip: { filter: (item) => item.datasetIndex < 2, callbacks: { title: (items) => (items.length ? `arrived about ${num(items[0].raw.x)} s` : ""), label: (item) => `${item.dataset.label} ${ms(item.raw.y)}` } } } },
    }),
    numbers: asTable(`${title} by time of arrival, ms`, ["#arrival s", "#requests/s", "#p50", "#p95"], windows.map((w) => [num(w.t), num(w.rate), num(w[`${key}_p50`]), num(w[`${key}_p95`])])),
  });
  return [
    el("dl", { class: "tiles" }, times.slice(0, 3).map(([title, key]) => tile(`${title} p95`, ms(quantile(curves[key], 0.95)), `median ${ms(quantile(curves[key], 0.5))}`)),
      Object.entries(data.statuses).map(([status, n]) => tile(`requests, ${status}`, whole(n), percent(n / data.rows)))),
    section("How requests spread", `Share of the ${whole(data.shown)} requests that count within a time.`,
      el("div", { class: "columns" }, times.map(([title, key], i) => distribution({ title, curves: [{ name: title, quantiles: curves[key], colour: kPlanColours[i], thick: true }], marks: [{ axis: "y", at: 95, text: "95 %" }] })))),
    section("Over time", `Median and 95th percentile of ${windows.length} spans; ${dots.length < data.shown ? "an even sample of the" : "all"} requests as dots.`,
      el("div", { class: "columns" }, overTime("TTFT", "ttft", 1), overTime("TPOT", "tpot", 2))),
  ];
};

const timelineSections = (data) => {
  const { times, pools } = data;
  const series = (values) => values.map((value, i) => ({ x: times[i], y: value }));
  const chart = (title, unit, sets, more) => figure({
    title, label: title,
    make: () => ({
      type: "line", data: { datasets: sets().map((set) => ({ ...set, stepped: true, borderWidth: 1.6 })) },
      options: { parsing: false, interaction: { mode: "index", axis: "x", intersect: false },
        scales: { x: axis("time [s]", { type: "linear", max: times[times.length - 1], ticks: shortTicks }), y: axis(unit, { min: 0, ticks: shortTicks, ...more }) },
        plugins: { legend: { position: "bottom" }, tooltip: { callbacks: { title: (items) => (items.length ? `${num(items[0].raw.x)} s` : ""), label: (item) => `${item.dataset.label}: ${num(item.raw.y)}` } } } },
    }),
  });
  const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const each = (state, factor = 1) => () => pools.map((pool, i) => lineSet(pool.name, series(pool[state].map((value) => value * factor)), kPlanColours[i % kPlanColours.length]));
  const scaled = pools.some((pool) => most(pool.starting) > 0 || new Set(pool.alive).size > 1);
  return [
    el("dl", { class: "tiles" }, pools.flatMap((pool) => [
      tile(`${pool.name}: waiting, most`, whole(most(pool.waiting)), `mean ${num(mean(pool.waiting))}`),
      tile(`${pool.name}: running, most`, whole(most(pool.running)), `mean ${num(mean(pool.running))}`),
      tile(`${pool.name}: KV blocks, most`, percent(most(pool.kv_share)), `mean ${percent(mean(pool.kv_share))}`)])),
    section("Load over time", data.stride > 1 ? `Each step shows the most of ${data.stride} samples.` : null,
      el("div", { class: "columns" }, chart("Requests running", "requests", each("running")), chart("Requests waiting", "requests", each("waiting")),
        chart("KV blocks in use", "share [%]", each("kv_share", 100), { max: 100 }), scaled ? chart("Workers serving", "workers", each("alive")) : null)),
    section("Numbers", null, asTable("Every sample shown", ["#time s", ...pools.flatMap((pool) => [`#${pool.name} running`, `#${pool.name} waiting`, `#${pool.name} KV`, `#${pool.name} workers`])],
      times.map((time, i) => [num(time), ...pools.flatMap((pool) => [whole(pool.running[i]), whole(pool.waiting[i]), percent(pool.kv_share[i]), whole(pool.alive[i])])]))),
  ];
};

const accuracySections = (data) => {
  const { figures: both, groups } = data;
  const kTints = ["plan-1", "plan-2", "plan-3", "plan-4", "plan-5", "analytic"];
  let by = 0;  // of groups
  const chart = ({ name, points }) => {
    const all = points.flatMap((point) => [point[1], point[2]]);
    const low = Math.min(...all) / 1.3, high = Math.max(...all) * 1.3;
    const groupOf = (point) => (groups.length ? point[5][by] : 0);
    const line = (label, factor, width) => ({ label, quiet: true, data: [{ x: low, y: low * factor }, { x: high, y: high * factor }], borderColor: faint(colour("text"), width > 1 ? 0.7 : 0.35), borderWidth: width, borderDash: width > 1 ? [] : [4, 4], pointRadius: 0, pointHitRadius: 0, pointStyle: "line" });
    return figure({
      label: `${name.toUpperCase()}: predicted against measured, ${points.length} points`, size: "tall",
      make: () => {
        const sizes = new Map();
        for (const point of points) sizes.set(groupOf(point), (sizes.get(groupOf(point)) || 0) + 1);
        const largest = [...sizes.entries()].sort((a, b) => b[1] - a[1]).map(([index]) => index);
        const sets = largest.slice(0, 5).map((index, i) => ({ index, label: groups.length ? groups[by].names[index] || "(empty)" : "points", tint: kTints[i] }));
        if (largest.length > 5) sets.push({ index: null, label: "others", tint: kTints[5] });
        const belongs = (point, set) => (set.index === null ? !largest.slice(0, 5).includes(groupOf(point)) : groupOf(point) === set.index);
        return {
          type: "scatter",
          data: { datasets: [
            ...sets.map((set) => ({ label: set.label.slice(0, 40), pointRadius: 3.5, pointHoverRadius: 6, backgroundColor: faint(colour(set.tint), 0.7), borderColor: faint(colour(set.tint), 0.7),
              data: points.filter((point) => belongs(point, set)).map((point) => ({ x: point[1], y: point[2], band: { y: [point[3], point[4]] }, point })) })),
            ...[["as measured", 1, 1.5], ["+20 %", 1.2, 1], ["\u221220 %", 0.8, 1]].map(([label, factor, width]) => ({ ...line(label, factor, width), showLine: true })),
          ] },
          options: { parsing: false, interaction: { mode: "nearest", intersect: false, axis: "xy" },
            scales: { x: axis(`measured ${name.toUpperCase()} [ms]`, { type: "logarithmic", min: low, max: high, ticks: logTicks }), y: axis(`predicted ${name.toUpperCase()} [ms]`, { type: "logarithmic", min: low, max: high, ticks: logTicks }) },
            plugins: { legend: { position: "bottom" }, tooltip: { filter: (item) => item.raw.point !== undefined, callbacks: { label: (item) => {
              const p = item.raw.point;
              return [groups.map((group, g) => group.names[p[5][g]]).join(", "), `line ${p[0]}: measured ${ms(p[1])}, predicted ${ms(p[2])} (${change(p[2] / p[1] - 1)})`, `80 % band ${ms(p[3])} to ${ms(p[4])}: ${p[3] <= p[1] && p[1] <= p[4] ? "holds it" : "misses it"}`];
            } } } } },
        };
      },
      caption: "Solid: predicted as measured; dashed: 20 % off. The cross is the 80 % band of the point under the pointer.",
      numbers: asTable(`${name.toUpperCase()}, ms`, ["#line", ...groups.map((group) => group.column), "#measured", "#predicted", "#error", "#band from", "#to"],
        points.slice(0, 500).map((point) => [String(point[0]), ...groups.map((group, g) => group.names[point[5][g]]), num(point[1]), num(point[2]), change(point[2] / point[1] - 1), num(point[3]), num(point[4])])),
    });
  };
  const shown = both.filter(({ points }) => points.length);
  const box = el("div", { class: "columns" });
  const fill = () => box.replaceChildren(...shown.map(chart));
  const pick = el("select", { id: "by", change: (event) => { by = Number(event.target.value); fill(); paintNew(); } }, groups.map((group, i) => el("option", { value: i }, group.column)));
  fill();
  return [
    el("dl", { class: "tiles" }, shown.flatMap(({ name, errors }) => [
      tile(`${name.toUpperCase()}: mean error`, percent(errors.mape), `median ${percent(errors.median)}, bias ${change(errors.bias)}`),
      tile(`${name.toUpperCase()}: within 20 %`, percent(errors.within20), `of ${counted(errors.rows, "row")}`),
      tile(`${name.toUpperCase()}: in the 80 % band`, percent(errors.in_band), `of ${counted(errors.rows, "row")}`)])),
    section("Predicted against measured", null, groups.length ? el("div", { class: "bar" }, el("label", { for: "by" }, "Colour by"), pick) : null, box),
  ];
};
