// What the numbers rest on, and what to do next.
const restsSection = (report, plan, following) => section("What the numbers rest on", null,
  table("What the numbers rest on", ["number", "how", "~from"], report.rests_on.map((row) => [row.number, row.how, row.from])),
  following(() => {
    const steps = plan() ? plan().breakdown : [];
    if (!steps.length) return null;
    return [el("h3", null, "Kernel times of the plan shown"),
      table("Kernel times", ["step", "#measured", "#interpolated", "#extrapolated", "#analytic", "tables", "borrowed from"], steps.map((step) => [
        `${step.role === "worker" ? "" : `${step.role} worker, `}${step.phase}`, ...["measured", "interpolated", "extrapolated", "analytic"].map((kind) => percent(step.provenance[kind])),
        step.kernel_version || "-", step.borrowed_from || "-"]))];
  }));

const saveButton = (text, name) => el("button", { type: "button", click: () => {
  const link = el("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
} }, `Save ${name}`);

const commandsSection = (report, plan, name, following) => section("Go on from here", null,
  command("This report's question", report.command),
  following(() => {
    if (!plan()) return null;
    const text = `${JSON.stringify(plan().plan, null, 2)}\n`;
    return [...plan().commands.map((next) => command(next.what, next.line)),
      el("div", { class: "bar" }, el("h3", null, `plan.json of ${name()}`), copyButton(text, "plan.json"), saveButton(text, "plan.json")),
      el("details", null, el("summary", null, "Show it"), el("pre", { tabindex: 0 }, text))];
  }));
