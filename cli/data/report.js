// The page of `drydock recommend --report` and `drydock size --report`.
const kPlanColours = ["plan-1", "plan-2", "plan-3", "plan-4", "plan-5"];

const reportPage = (report, page) => {
  const { question, plans, front } = report;
  document.title = `Drydock: ${question.model}`;
  let chosen = plans.length ? { list: "plans", index: 0 } : { list: "front", index: 0 };
  const plan = () => report[chosen.list][chosen.index];
  const nameOf = (where) => (where.list === "plans" ? `plan ${where.index + 1}` : `front point ${where.index + 1}`);
  const studied = () => (chosen.list === "plans" && report.sensitivity.length && chosen.index < report.sensitivity[0].plans.length ? chosen.index : 0);
  const updates = [];  // run when another plan is chosen
  const choose = (list, index) => {
    chosen = { list, index };
    for (const update of updates) update();
    paintNew();
    say(`${nameOf(chosen)} chosen`);
  };
  // A box whose content follows the chosen plan.
  const following = (make) => {
    const box = el("div");
    const fill = () => box.replaceChildren(...[make()].flat().filter(Boolean));
    updates.push(fill);
    fill();
    return box;
  };

  page.append(
    el("header", null,
      el("p", { class: "eyebrow" }, "Drydock recommendation"),
      el("h1", { id: "answer" }, answerInWords(report)),
      el("p", { class: "quiet" }, questionInWords(question)),
      (report.warnings || []).map((warning) => el("p", { class: "note" }, warning))),
    plans.length ? tiles(plans[0], question) : searchedSection(report));
  if (plans.length) page.append(plansSection(report, () => chosen, choose, updates));
  if (front.length) page.append(frontSection(report, () => chosen, choose, updates));
  if (plans.length || front.length) page.append(chosenSection(plan, () => nameOf(chosen), following));
  if (plans.some((p) => p.felt)) page.append(feltSection(report));
  if (report.sensitivity.length) page.append(movesSection(report, studied, updates));
  page.append(restsSection(report, plan, following), commandsSection(report, plan, () => nameOf(chosen), following));
};

const searchedSection = (report) => {
  const s = report.searched;
  return section("Why nothing runs", `Of ${whole(s.enumerated)} candidates ${whole(s.illegal)} are illegal, ${whole(s.out_of_memory)} do not fit, ${whole(s.overloaded)} can't keep up.`,
    table("Reasons", ["~reason", "#candidates"], Object.entries(s.reasons).map(([reason, n]) => [reason, whole(n)])));
};

const plansSection = (report, chosen, choose, updates) => {
  const { plans, searched } = report, price = plans[0].cost_per_million_tokens;
  const at = figures(plans[0]).at;
  const box = el("div");
  const fill = () => {
    const isChosen = (i) => chosen().list === "plans" && chosen().index === i;
    const held = document.activeElement && document.activeElement.dataset.plan;
    box.replaceChildren(table("Ranked plans", ["plan", "backend", "#GPUs", "~workers", "#batch", `#TTFT ${at}`, `#TPOT ${at}`, "#tok/s/user", "#tok/s/GPU", price ? "#cost/M tokens" : "#GPUh/M tokens"],
      plans.map((plan, i) => {
        const { ttft, tpot } = figures(plan);
        return [
          el("button", { type: "button", class: "plan", "data-plan": i, "aria-pressed": String(isChosen(i)), "aria-label": `Show plan ${i + 1}`, click: () => choose("plans", i) }, String(i + 1)),
          plan.backend, whole(plan.gpus), plan.workers, batches(plan), ms(ttft.value), ms(tpot.value), num(plan.tokens_per_s_per_user.value),
          num(plan.tokens_per_s_per_gpu.value), num((price ? plan.cost_per_million_tokens : plan.gpu_hours_per_million_tokens).value)];
      }), isChosen));
    if (held !== undefined) { const again = box.querySelector(`[data-plan="${CSS.escape(held)}"]`); if (again) again.focus(); }
  };
  updates.push(fill);
  fill();
  const tried = report.method === "simulate" ? `; ${whole(searched.simulated)} simulated, the rest can't be among the best` : "";
  return section(report.met ? "Plans" : "Nearest plans",
    `${whole(searched.enumerated)} candidates: ${whole(searched.illegal)} illegal, ${whole(searched.out_of_memory)} out of memory, ${whole(searched.overloaded)} overloaded, ${whole(searched.priced)} priced${tried}. ${whole(searched.meeting_slo)} meet the targets.`, box);
};

const pointOf = (plan, isChosen) => ({
  x: plan.tokens_per_s_per_user.value, y: plan.tokens_per_s_per_gpu.value, chosen: isChosen,
  band: { x: [plan.tokens_per_s_per_user.low, plan.tokens_per_s_per_user.high], y: [plan.tokens_per_s_per_gpu.low, plan.tokens_per_s_per_gpu.high] },
});

const frontSection = (report, chosen, choose, updates) => {
  const { plans, front, question } = report;
  const isChosen = (list, i) => chosen().list === list && chosen().index === i;
  const edge = (side) => front.map((plan) => ({ x: plan.tokens_per_s_per_user.value, y: plan.tokens_per_s_per_gpu[side] }));
  const points = [];  // what the arrow keys visit, from slow to fast: plans and front together
  front.forEach((plan, i) => points.push({ list: "front", set: 2, index: i, x: plan.tokens_per_s_per_user.value }));
  plans.forEach((plan, i) => points.push({ list: "plans", set: 3, index: i, x: plan.tokens_per_s_per_user.value }));
  points.sort((a, b) => a.x - b.x);
  const quietLine = { pointRadius: 0, borderWidth: 0, quiet: true, pointHitRadius: 0 };
  const chart = figure({
    label: `Tokens per second per GPU against tokens per second per user: ${front.length} points of the front, ${plans.length} plans`,
    size: "tall",
    caption: "Circles: the front of all priced plans, by closed forms for the mean; filled ones meet the targets. Diamonds: the ranked plans" +
      `${report.method === "simulate" ? ", simulated" : ""}. Shaded: the front's 80 % band; a cross shows both bands of one plan. Click or Enter shows a plan below.`,
    walk: () => points.map((point) => [point.set, point.index]),
    enter: (i) => choose(points[i].list, points[i].index),
    make: () => ({
      type: "line",
      data: { datasets: [
        { ...quietLine, label: "band from", data: edge("low") },
        { ...quietLine, label: "80 % band", data: edge("high"), fill: 0, backgroundColor: faint(colour("accent"), 0.13) },
        { label: "front", clip: 8, data: front.map((plan, i) => pointOf(plan, isChosen("front", i))), borderColor: colour("accent"), borderWidth: 1.5, pointRadius: 4.5, pointHoverRadius: 7,
          pointBackgroundColor: front.map((plan, i) => (isChosen("front", i) ? colour("text") : plan.meets_slo ? colour("accent") : colour("card"))) },
        { label: "ranked plans", order: -1, data: plans.map((plan, i) => pointOf(plan, isChosen("plans", i))), showLine: false, pointStyle: "rectRot", pointRadius: plans.map((_, i) => (isChosen("plans", i) ? 11 : 8)), pointHoverRadius: 11,
          borderColor: colour("card"), borderWidth: 1.5, pointBackgroundColor: plans.map((_, i) => colour(kPlanColours[i % kPlanColours.length])) },
      ] },
      options: {
        parsing: false, interaction: { mode: "nearest", intersect: false, axis: "xy" },
        scales: { x: axis("output tokens/s per user: faster for each user \u2192", { type: "linear", min: 0, ticks: shortTicks }), y: axis("output tokens/s per GPU: cheaper \u2192", { min: 0, ticks: shortTicks }) },
        plugins: {
          marks: { list: question.tpot_ms ? [{ axis: "x", at: 1000 / question.tpot_ms, text: `TPOT target ${ms(question.tpot_ms)}` }] : [] },
          legend: { display: false },
          tooltip: {
            filter: (item) => item.datasetIndex >= 2,
            callbacks: {
              title: (items) => { if (!items.length) return ""; const set = items[0].datasetIndex === 3; return set ? `Plan ${items[0].dataIndex + 1}` : `Front, by closed forms${front[items[0].dataIndex].meets_slo ? "" : ": misses the targets"}`; },
              label: (item) => {
                const plan = (item.datasetIndex === 3 ? plans : front)[item.dataIndex], { ttft, tpot, at } = figures(plan);
                return [`${plan.backend}, ${counted(plan.gpus, "GPU")}: ${plan.workers}`, `batch ${batches(plan)}`, `${num(plan.tokens_per_s_per_gpu.value)} tokens/s/GPU (${band(plan.tokens_per_s_per_gpu)})`,
                  `${num(plan.tokens_per_s_per_user.value)} tokens/s/user`, `TTFT ${ms(ttft.value)}, TPOT ${ms(tpot.value)} (${at})`];
              },
            },
          },
        },
      },
    }),
    numbers: el("details", null, el("summary", null, "As a table"), table("Front", ["", "backend", "#GPUs", "~workers", "#batch", "#tok/s/user", "#tok/s/GPU", "#TTFT mean", "#TPOT mean", "targets"],
      front.map((plan, i) => [el("button", { type: "button", class: "plan", "aria-label": `Show front point ${i + 1}`, click: () => choose("front", i) }, String(i + 1)), plan.backend, whole(plan.gpus), plan.workers, batches(plan),
        num(plan.tokens_per_s_per_user.value), num(plan.tokens_per_s_per_gpu.value), ms(plan.ttft_ms.value), ms(plan.tpot_ms.value), plan.meets_slo ? "met" : "missed"]))),
  });
  updates.push(() => chart.redraw());
  return section("Speed for a user against throughput of a GPU", null, chart);
};

const chosenSection = (plan, name, following) =>
  el("section", { "aria-label": "Chosen plan", id: "chosen" }, following(() => [
    el("h2", null, `${name().replace(/^./, (c) => c.toUpperCase())}: ${plan().workers}`),
    el("p", { class: "quiet" }, [`${plan().backend} ${plan().backend_version}, ${plan().precision === "auto" ? "weights as published" : `${plan().precision} weights`}, ${plan().kv_precision} KV cache, ${counted(plan().gpus, "GPU")}`, bindingInWords(plan())].filter(Boolean).join("; ")),
    tableOfPools(plan()), plan().breakdown.length ? el("div", { class: "columns" }, plan().breakdown.map((step) => stepFigure(step)))
      : el("p", { class: "quiet" }, "The parts of a step are kept for an even choice of a long front; drydock estimate --plan gives them for this one."), memoryFigure(plan())]));

const tableOfPools = (plan) => table("Pools", ["pool", "system", "#workers", "#GPUs each", "parallel", "#batch limit", "#tokens a step", "#KV tokens a rank"],
  poolsOf(plan).map((pool) => [pool.role, pool.system, whole(pool.replicas), whole(pool.gpus_per_worker),
    ["tp", "pp", "attention_dp", "moe_tp", "ep"].filter((kind) => pool[kind] > 1).map((kind) => `${kind.replace("attention_", "")} ${pool[kind]}`).join(", ") || "one GPU",
    whole(pool.max_batch), whole(pool.max_tokens), whole(pool.kv_blocks * 32)]));

const words = (name) => name.replace(/_/g, " ");
// What the operation is, and where it is one of several of its kind.
const opName = (op) => (["gemm", "batched_gemm", "elementwise"].includes(op.op) ? `${words(op.op)}, ${words(op.module)}` : words(op.op));
const stepFigure = (step) => {
  const title = `One ${step.phase} step of ${counted(Math.round(step.batch), "sequence")}`;
  const shown = step.ops.slice(0, 8), rest = step.ops.slice(8);
  const bars = shown.map((op) => ({ name: opName(op), op }));
  const smaller = 1 - shown.reduce((sum, op) => sum + op.share, 0);
  if (rest.length) bars.push({ name: "the rest", op: { share: Math.max(0, smaller), provenance: "mixed", dtype: "" } });
  return el("div", null, el("h3", null, `${title}: ${micros(step.total_us)} of kernels`),
    figure({
      label: `${title}: share of the time by operation`, size: "rows-9",
      make: () => ({
        type: "bar",
        data: { labels: bars.map((bar) => bar.name), datasets: [{ data: bars.map((bar) => 100 * bar.op.share), backgroundColor: bars.map((bar) => colour(bar.op.provenance)), borderRadius: 3, barPercentage: 0.85 }] },
        options: { indexAxis: "y", interaction: { mode: "nearest", axis: "y", intersect: false },
          scales: { x: axis("share of kernel time [%]", { min: 0, ticks: shortTicks }), y: { grid: { display: false }, ticks: { autoSkip: false, color: colour("text") } } },
          plugins: { legend: { display: false }, tooltip: { callbacks: { label: (item) => { const op = bars[item.dataIndex].op; return `${percent(op.share)}, ${micros(op.share * step.total_us)}${op.dtype ? `, ${op.dtype}` : ""}, ${op.provenance}`; } } } } },
      }),
      caption: el("ul", { class: "key" }, Object.entries(step.provenance).filter(([, share]) => share >= 0.005).map(([kind, share]) => el("li", { class: kind }, el("span", null, `${kind} ${percent(share)}`)))),
      numbers: asTable(title, ["where", "operation", "format", "#time", "#share", "rests on"], step.ops.map((op) => [words(op.module), words(op.op), op.dtype, micros(op.share * step.total_us), percent(op.share), op.provenance])),
    }));
};

const kMemoryParts = [["weights", "weights"], ["activations", "activations"], ["communication", "collective buffers"], ["runtime", "runtime"], ["kv_room", "KV cache and state"], ["kept_free", "kept free"]];
const memoryFigure = (plan) => {
  const pools = plan.breakdown.filter((step, i, all) => all.findIndex((other) => other.role === step.role) === i);
  if (!pools.length) return null;
  const name = (step) => (step.role === "worker" ? "a worker's GPU" : `a ${step.role} GPU`);
  return el("div", null, el("h3", null, "Memory of a GPU"), figure({
    label: "Memory of the fullest GPU of each pool in GiB, by use", size: "low",
    make: () => ({
      type: "bar",
      data: { labels: pools.map(name), datasets: kMemoryParts.map(([key, label], i) => ({ label, data: pools.map((step) => step.memory_bytes[key] / 2 ** 30), backgroundColor: colour(`part-${i + 1}`), barPercentage: 0.7 })) },
      options: { indexAxis: "y", interaction: { mode: "nearest", intersect: false, axis: "xy" },
        scales: { x: axis("GiB", { stacked: true, max: Math.max(...pools.map((step) => step.memory_bytes.gpu)) / 2 ** 30, ticks: { ...shortTicks } }), y: { stacked: true, grid: { display: false }, ticks: { color: colour("text") } } },
        plugins: { legend: { position: "bottom" }, tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${num(item.raw)} GiB` } } } },
    }),
    numbers: asTable("Memory of a GPU", ["", ...kMemoryParts.map(([, label]) => `#${label}`), "#GPU"], pools.map((step) => [name(step), ...kMemoryParts.map(([key]) => gib(step.memory_bytes[key])), gib(step.memory_bytes.gpu)])),
  }));
};

const feltSection = (report) => {
  const { question } = report;
  const curves = (key) => report.plans.map((plan, i) => ({ plan, i })).filter(({ plan }) => plan.felt)
    .map(({ plan, i }) => ({ name: `plan ${i + 1}`, quantiles: plan.felt[key], colour: kPlanColours[i % kPlanColours.length], thick: i === 0 }));
  const marks = (target) => [
    ...(target ? [{ axis: "x", at: target, text: `target ${ms(target)}`, colour: "bad" }] : []),
    ...(question.percentile ? [{ axis: "y", at: question.percentile, text: `${question.percentile} %` }] : [])];
  const requests = report.plans[0].felt ? report.plans[0].felt.requests : 0;
  return section("What users feel", `Share of requests within a time, ${requests ? `of ${whole(requests)} simulated requests` : "simulated"}. A plan meets a target where its curve passes above the crossing of the two dashed lines.`,
    el("div", { class: "columns" },
      distribution({ title: "TTFT", curves: curves("ttft_ms"), marks: marks(question.ttft_ms) }),
      distribution({ title: "TPOT", curves: curves("tpot_ms"), marks: marks(question.tpot_ms) })));
};
