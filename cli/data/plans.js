// Plans in words and numbers.
const figures = (plan) => ({
  ttft: plan.tail ? plan.tail.ttft_ms : plan.ttft_ms,
  tpot: plan.tail ? plan.tail.tpot_ms : plan.tpot_ms,
  at: plan.tail ? `p${plan.tail.percentile}` : "mean",
});
const roles = ["worker", "prefill", "decode"];
const poolsOf = (plan) => roles.filter((role) => plan[role]).map((role) => ({ role, ...plan[role] }));
const batches = (plan) => poolsOf(plan).map((pool) => pool.max_batch).join(" / ");
const counted = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

// "4 prefill workers of 2 GPUs and 2 decode workers of 4 GPUs"
const poolsInWords = (plan) => poolsOf(plan).map((pool) =>
  `${counted(pool.replicas, pool.role === "worker" ? "worker" : `${pool.role} worker`)} of ${counted(pool.gpus_per_worker, "GPU")}`).join(" and ");

const targetsInWords = (question) => {
  const parts = [];
  if (question.ttft_ms) parts.push(`TTFT \u2264 ${ms(question.ttft_ms)}`);
  if (question.tpot_ms) parts.push(`TPOT \u2264 ${ms(question.tpot_ms)}`);
  if (question.request_latency_ms) parts.push(`request \u2264 ${ms(question.request_latency_ms)}`);
  if (!parts.length) return "with no targets";
  return `within ${parts.join(", ")} ${question.percentile ? `for ${question.percentile} % of requests` : "in the mean"}`;
};
const loadInWords = (question) =>
  question.rate ? `${num(question.rate)} requests/s` : question.concurrency ? `${whole(question.concurrency)} requests in flight` : "as much load as it can take";

const questionInWords = (question) =>
  `${whole(question.isl)} tokens in, ${whole(question.osl)} out, ${question.prefix_hit ? percent(question.prefix_hit) : "none"} of the prompt cached, ${loadInWords(question)}; ` +
  `${question.precision === "auto" ? "weights as published" : `${question.precision} weights`}; up to ${counted(question.gpus, "GPU")}`;

const bindingInWords = (plan) => plan.binding ? `${plan.binding.target.replace("_", " ").replace(/^t(tft|pot)$/, (word) => word.toUpperCase())} binds: ${percent(plan.binding.share_of_target)} of its limit` : "";

// The answer in a sentence.
const answerInWords = (report) => {
  const { question, plans } = report, best = plans[0];
  if (!best) return `Nothing can run ${question.model} here: no candidate is legal, fits and keeps up.`;
  const what = `${question.model} on ${counted(best.gpus, "GPU")} (${poolsOf(best).map((pool) => pool.system).filter((name, i, all) => all.indexOf(name) === i).join(" + ")}) with ${best.backend}`;
  const rate = `${num(best.tokens_per_s_per_gpu.value)} tokens/s per GPU`;
  const does = question.rate || question.concurrency ? `${loadInWords(question)}, ${rate},` : rate;
  if (!report.met) return `Nothing meets the targets. The nearest is ${what}: ${poolsInWords(best)}, ${does}; ${bindingInWords(best)}.`;
  return `Run ${what}: ${poolsInWords(best)}. It serves ${does} ${targetsInWords(question)}.`;
};

const band = (figure, unit = num) => `${unit(figure.low)} to ${unit(figure.high)}`;
const tile = (name, value, below, share) =>
  el("div", { class: "tile" }, el("dt", null, name), el("dd", null, el("div", { class: "value" }, value), el("div", { class: "band" }, below),
    share ? el("meter", { class: "meter", min: 0, max: 1.25, low: 1, high: 1, optimum: 0, value: Math.min(share, 1.25), "aria-label": `${percent(share)} of the limit` }) : null));

const tiles = (plan, question) => {
  const { ttft, tpot, at } = figures(plan);
  const limit = (figure, target) => (target ? figure.value / target : 0);
  const price = plan.cost_per_million_tokens;
  return el("dl", { class: "tiles" },
    tile("tokens/s/GPU", num(plan.tokens_per_s_per_gpu.value), band(plan.tokens_per_s_per_gpu)),
    tile(`TTFT ${at}`, ms(ttft.value), band(ttft, ms), limit(ttft, question.ttft_ms)),
    tile(`TPOT ${at}`, ms(tpot.value), band(tpot, ms), limit(tpot, question.tpot_ms)),
    tile("tokens/s/user", num(plan.tokens_per_s_per_user.value), band(plan.tokens_per_s_per_user)),
    tile("requests/s", num(plan.requests_per_s.value), band(plan.requests_per_s)),
    tile(price ? "cost / M tokens" : "GPU hours / M tokens", num((price || plan.gpu_hours_per_million_tokens).value), band(price || plan.gpu_hours_per_million_tokens)));
};
