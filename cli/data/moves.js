// Which assumption moves the answer.
const kMetrics = {
  tokens_per_s_per_gpu: { name: "tokens/s/GPU", from: "retuned" },
  ttft_ms: { name: "TTFT", from: "as_deployed" },
  tpot_ms: { name: "TPOT", from: "as_deployed" },
};
const metricOf = (moved, metric) => { const figures = moved[kMetrics[metric].from]; return figures ? figures[metric] : null; };

// Both sides of every assumption as shares of the plan's figure with nothing changed, the largest movement first.
const movements = (changes, plan, metric) => {
  const base = metricOf(changes[0].plans[plan], metric);
  const rows = new Map();
  for (const change of changes.slice(1)) {
    const value = metricOf(change.plans[plan], metric);
    const row = rows.get(change.assumption) || { name: change.assumption, sides: {}, most: 0 };
    const share = base && value !== null ? value / base - 1 : null;
    row.sides[change.direction] = { share, change };
    row.most = Math.max(row.most, Math.abs(share || 0));
    rows.set(change.assumption, row);
  }
  return [...rows.values()].sort((a, b) => b.most - a.most);
};

// "All kernel times +10 % move plan 1 most: -9 % tokens/s/GPU. Plan 2 would then win."
const movesInWords = (report, plan) => {
  const changes = report.sensitivity, top = movements(changes, plan, startMetric(report))[0], base = changes[0];
  const parts = [];
  if (top && top.most > 0) {
    const side = Object.values(top.sides).sort((a, b) => Math.abs(b.share || 0) - Math.abs(a.share || 0))[0];
    parts.push(`Most for plan ${plan + 1}: ${top.name}; ${side.change.change} moves ${kMetrics[startMetric(report)].name} by ${change(side.share)}.`);
  }
  const now = base.best >= 0 ? base.plans[base.best] : null;
  if (base.best > 0 && openLoad(report)) parts.push(`With batch limits tuned more finely than the search's steps plan ${base.best + 1} is ahead as things are: ${num(now.retuned.tokens_per_s_per_gpu)} tokens/s/GPU at a limit of ${whole(now.max_batch)}.`);
  const others = changes.slice(1).filter((item) => item.best >= 0 && item.best !== base.best);
  if (others.length) parts.push(`The best of them would be another with ${others.map((item) => `${item.assumption} ${item.change} (plan ${item.best + 1})`).join(", ")}.`);
  else if (base.best >= 0) parts.push(`Plan ${base.best + 1} stays the best of these under every change.`);
  const none = changes.slice(1).filter((item) => item.best < 0 && base.best >= 0);
  if (none.length) parts.push(`None of these plans would meet the targets with ${none.map((item) => `${item.assumption} ${item.change}`).join(", ")}.`);
  return parts.join(" ");
};
const openLoad = (report) => !report.question.rate && !report.question.concurrency;
const startMetric = (report) => {
  if (openLoad(report) && metricOf(report.sensitivity[0].plans[0], "tokens_per_s_per_gpu") !== null) return "tokens_per_s_per_gpu";
  const binding = report.plans[0].binding;
  return binding && binding.target === "tpot" ? "tpot_ms" : "ttft_ms";
};

const movesFigure = (report, plan, metric) => {
  const rows = movements(report.sensitivity, plan, metric);
  const side = (direction, name, tint) => ({
    label: name, backgroundColor: colour(tint), borderRadius: 3, grouped: false, barPercentage: 0.75,
    data: rows.map((row) => { const found = row.sides[direction]; return found && found.share !== null ? 100 * found.share : null; }) });
  return figure({
    label: `Change of ${kMetrics[metric].name} of plan ${plan + 1} by assumption`, size: "rows-12",
    make: () => ({
      type: "bar",
      data: { labels: rows.map((row) => row.name), datasets: [side(1, "assumption up", "plan-2"), side(-1, "assumption down", "plan-1")] },
      options: { indexAxis: "y", interaction: { mode: "nearest", intersect: false, axis: "xy" },
        scales: { x: axis(`change of ${kMetrics[metric].name} [%]`, { ticks: shortTicks }), y: { grid: { display: false }, ticks: { autoSkip: false, color: colour("text") } } },
        plugins: { legend: { position: "bottom" }, tooltip: { callbacks: { label: (item) => {
          const found = rows[item.dataIndex].sides[item.datasetIndex === 0 ? 1 : -1];
          return `${found.change.change}: ${change(found.share)}`;
        } } } } },
    }),
  });
};

const movesTable = (report, plan) => {
  const figuresOf = (moved, key) => (moved.as_deployed ? ms(moved.as_deployed[key]) : "-");
  return el("details", null, el("summary", null, "As a table"), table(`What would move plan ${plan + 1}`,
    ["assumption", "change", "#TTFT", "#TPOT", "as deployed", ...(openLoad(report) ? ["#best batch limit", "#tok/s/GPU then"] : ["#tok/s/GPU"]), "best plan"],
    report.sensitivity.map((item) => {
      const moved = item.plans[plan];
      const rate = openLoad(report) ? moved.retuned : moved.as_deployed;
      return [item.assumption || "as assumed", item.change, figuresOf(moved, "ttft_ms"), figuresOf(moved, "tpot_ms"),
        moved.as_deployed ? el("span", { class: moved.meets ? "good" : "bad" }, moved.meets ? "meets" : "misses") : "can't run or keep up",
        ...(openLoad(report) ? [moved.retuned ? whole(moved.max_batch) : "-"] : []), rate ? num(rate.tokens_per_s_per_gpu) : "-",
        item.best >= 0 ? `plan ${item.best + 1}` : "none"];
    })));
};

const movesSection = (report, studied, updates) => {
  let metric = startMetric(report);
  const box = el("div"), words = el("p");
  const fill = () => {
    const plan = studied();
    words.textContent = movesInWords(report, plan);
    box.replaceChildren(movesFigure(report, plan, metric), movesTable(report, plan));
  };
  const pick = el("select", { id: "metric", change: (event) => { metric = event.target.value; fill(); paintNew(); } },
    Object.entries(kMetrics).map(([key, { name }]) => el("option", { value: key, selected: key === metric }, name)));
  updates.push(fill);
  fill();
  const how = openLoad(report)
    ? "Each assumption is changed alone and the plans are simulated again. Tokens/s/GPU are with the batch limit that then serves most within the targets; TTFT and TPOT are of the plan as deployed. Movements of a few percent are within a simulation's noise."
    : "Each assumption is changed alone and the plans are simulated again, as deployed.";
  return section("What would move the answer", how, words, el("div", { class: "bar" }, el("label", { for: "metric" }, "Show the change of"), pick), box);
};
