// Charts: Chart.js with the page's colours, drawn anew when the colour scheme changes; keys walk their points.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faint = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");

// Vertical and horizontal lines at given values: options.marks = [{axis, at, text}].
const marksPlugin = {
  id: "marks",
  afterDatasetsDraw(chart, _, options) {
    const { ctx, chartArea: area, scales } = chart;
    for (const mark of options.list || []) {
      const place = scales[mark.axis].getPixelForValue(mark.at);
      const inside = mark.axis === "x" ? place >= area.left && place <= area.right : place >= area.top && place <= area.bottom;
      if (!inside) continue;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour(mark.colour || "quiet");
      ctx.setLineDash([5, 4]);
      ctx.beginPath();
      if (mark.axis === "x") ctx.moveTo(place, area.top), ctx.lineTo(place, area.bottom);
      else ctx.moveTo(area.left, place), ctx.lineTo(area.right, place);
      ctx.stroke();
      ctx.font = "12px system-ui, sans-serif";
      const width = ctx.measureText(mark.text).width;
      if (mark.axis === "x") ctx.fillText(mark.text, place + 5 + width > area.right ? place - 5 - width : place + 5, area.bottom - 8);
      else ctx.fillText(mark.text, area.left + 6, place - 5);
      ctx.restore();
    }
  },
};

// 80 % bands as crosses on the points that have one and are pointed at, or chosen: point.band = {x: [low, high], y: ...}.
const bandsPlugin = {
  id: "bands",
  afterDatasetsDraw(chart) {
    const { ctx, scales, chartArea: area } = chart;
    const shown = chart.getActiveElements().map(({ datasetIndex, index }) => chart.data.datasets[datasetIndex].data[index]);
    for (const set of chart.data.datasets) for (const point of set.data) if (point && point.chosen) shown.push(point);
    ctx.save();
    ctx.beginPath();
    ctx.rect(area.left, area.top, area.right - area.left, area.bottom - area.top);
    ctx.clip();
    for (const point of shown) {
      if (!point || !point.band) continue;
      ctx.strokeStyle = colour(point.chosen ? "text" : "quiet");
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      const x = scales.x.getPixelForValue(point.x), y = scales.y.getPixelForValue(point.y);
      if (point.band.x) {
        const [low, high] = point.band.x.map((value) => scales.x.getPixelForValue(value));
        ctx.moveTo(low, y), ctx.lineTo(high, y);
        for (const end of [low, high]) ctx.moveTo(end, y - 4), ctx.lineTo(end, y + 4);
      }
      if (point.band.y) {
        const [low, high] = point.band.y.map((value) => scales.y.getPixelForValue(value));
        ctx.moveTo(x, low), ctx.lineTo(x, high);
        for (const end of [low, high]) ctx.moveTo(x - 4, end), ctx.lineTo(x + 4, end);
      }
      ctx.stroke();
    }
    ctx.restore();
  },
};

const drawn = [];  // {canvas, make, chart}
const paint = (entry) => {
  Chart.defaults.color = colour("quiet");
  Chart.defaults.borderColor = colour("grid");
  Chart.defaults.font.family = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;
  Object.assign(Chart.defaults.plugins.tooltip, { backgroundColor: colour("text"), titleColor: colour("card"), bodyColor: colour("card"), padding: 10, boxPadding: 4 });
  Object.assign(Chart.defaults.plugins.legend.labels, { usePointStyle: true, boxHeight: 7, color: colour("text") });
  if (entry.chart) entry.chart.destroy();
  entry.chart = new Chart(entry.canvas, { plugins: [marksPlugin, bandsPlugin], ...entry.make() });
  entry.canvas.dataset.drawn = "yes";
};

// A chart, with `title` above it where it has no heading of its own, with its text for those who can't see it, and its numbers as a table. `make` gives Chart.js's configuration.
// `walk`: [datasetIndex, index] of the points that the arrow keys visit, in their order; `enter(i)`: Enter or a click on one.
const figure = ({ title, label, make, size, caption, numbers, walk, enter }) => {
  const canvas = el("canvas", { role: "img", tabindex: 0, "aria-label": label + (enter ? ". Arrow keys move along the points, Enter chooses one." : ". Arrow keys read the points.") });
  const entry = { canvas, make, chart: null };
  let at = -1;
  const steps = () => (walk ? walk() : entry.chart.data.datasets.flatMap((set, d) => set.data.map((_, i) => [d, i]).filter(() => !set.quiet)));
  const show = (points) => {
    const [datasetIndex, index] = points[at];
    const element = entry.chart.getDatasetMeta(datasetIndex).data[index];
    entry.chart.setActiveElements([{ datasetIndex, index }]);
    entry.chart.tooltip.setActiveElements([{ datasetIndex, index }], element ? { x: element.x, y: element.y } : { x: 0, y: 0 });
    entry.chart.update("none");
    const tip = entry.chart.tooltip;
    say([...(tip.title || []), ...(tip.body || []).flatMap((part) => part.lines)].join(", "));
  };
  canvas.addEventListener("keydown", (event) => {
    const points = steps();
    if (!points.length) return;
    if (event.key === "Enter" && enter && at >= 0) enter(at);
    else if (event.key === "ArrowRight" || event.key === "ArrowDown") at = Math.min(points.length - 1, at + 1), show(points);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") at = Math.max(0, at - 1), show(points);
    else if (event.key === "Home") at = 0, show(points);
    else if (event.key === "End") at = points.length - 1, show(points);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("click", (event) => {
    if (!enter) return;
    const hit = entry.chart.getElementsAtEventForMode(event, "nearest", { intersect: false, axis: "xy" }, true)[0];
    const found = hit ? steps().findIndex(([d, i]) => d === hit.datasetIndex && i === hit.index) : -1;
    if (found >= 0) at = found, enter(found);
  });
  drawn.push(entry);
  const node = el("figure", null, title && el("h3", null, title), el("div", { class: `canvas-box ${size || ""}` }, canvas), caption && el("figcaption", null, caption), numbers || null);
  node.redraw = () => paint(entry);
  return node;
};

const paintNew = () => {
  for (let i = drawn.length - 1; i >= 0; --i) if (!drawn[i].canvas.isConnected) drawn[i].chart && drawn[i].chart.destroy(), drawn.splice(i, 1);
  for (const entry of drawn) if (!entry.chart) paint(entry);
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(paint));

const axis = (title, more) => ({ title: { display: true, text: title }, grid: { color: colour("grid") }, ...more });
const shortTicks = { callback: (value) => (value >= 10000 ? `${num(value / 1000)}k` : Number(value.toPrecision(4)).toLocaleString("en-US")), maxRotation: 0 };
// A log axis marks 1, 2 and 5 of each decade only.
const logTicks = { callback: (value) => ([1, 2, 5].some((digit) => Math.abs(value / 10 ** Math.floor(Math.log10(value) + 1e-9) - digit) < 1e-6) ? num(value).replace(/\.0+$/, "") : null), maxRotation: 0, autoSkip: false };
// Quantiles in equal steps as a curve "share of requests within x", on a log axis where they spread over more than 30 x.
const cumulative = (quantiles) => quantiles.map((value, i) => ({ x: value, y: (100 * i) / (quantiles.length - 1) }));
const quantile = (quantiles, share) => quantiles[Math.round(share * (quantiles.length - 1))];
const distribution = ({ title, curves, marks }) => {
  const values = curves.flatMap((curve) => curve.quantiles).filter((value) => value > 0);
  // Targets that are not far off are in the picture.
  const target = Math.max(0, ...(marks || []).filter((mark) => mark.axis === "x" && mark.at < 2 * Math.max(...values)).map((mark) => mark.at * 1.03));
  const spreads = values.length && Math.max(...values) / Math.min(...values) > 30;
  return figure({
    label: `${title}: share of requests within a time, ${curves.length} curve${curves.length > 1 ? "s" : ""}`,
    make: () => ({
      type: "line",
      data: { datasets: curves.map((curve) => ({
        label: curve.name, data: cumulative(curve.quantiles), borderColor: colour(curve.colour), backgroundColor: colour(curve.colour),
        borderWidth: curve.thick ? 3 : 1.6, pointRadius: 0, pointHitRadius: 8, pointStyle: "line" })) },
      options: {
        parsing: false, interaction: { mode: "nearest", intersect: false, axis: "xy" },
        scales: {
          x: axis(`${title} [ms]`, spreads ? { type: "logarithmic", suggestedMax: target, ticks: logTicks } : { type: "linear", suggestedMax: target || undefined, ticks: shortTicks }),
          y: axis("requests within it [%]", { min: 0, max: 100 }),
        },
        plugins: { marks: { list: marks }, legend: { display: curves.length > 1, position: "bottom" },
          tooltip: { callbacks: { title: (items) => items[0].dataset.label, label: (item) => `${item.raw.y.toFixed(0)} % within ${ms(item.raw.x)}` } } },
      },
    }),
    numbers: asTable(`${title}, quantiles in ms`, ["", "#p50", "#p90", "#p95", "#p99", "#most"],
      curves.map((curve) => [curve.name, ...[0.5, 0.9, 0.95, 0.99, 1].map((share) => num(quantile(curve.quantiles, share)))])),
  });
};
