// Elements, numbers and tables. Text always goes in as text, never as markup.
const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

// Three digits that matter, thousands set apart.
const num = (value) => {
  if (value === null || value === undefined || !isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  const digits = size >= 99.5 ? 0 : size >= 9.95 ? 1 : size >= 0.0995 || size === 0 ? 2 : 4;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const whole = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
const percent = (share) => `${(share * 100).toFixed(Math.abs(share) < 0.0995 ? 1 : 0)}\u00a0%`;
const change = (share) => `${share >= 0 ? "+" : "\u2212"}${percent(Math.abs(share))}`;
const ms = (value) => (value >= 9950 ? `${num(value / 1000)}\u00a0s` : value >= 1 ? `${num(value)}\u00a0ms` : `${num(value * 1000)}\u00a0\u00b5s`);
const gib = (bytes) => `${num(bytes / 2 ** 30)}\u00a0GiB`;
const micros = (us) => (us >= 1000 ? `${num(us / 1000)} ms` : `${num(us)} \u00b5s`);

// `columns`: names; those that start with "#" hold numbers, with "~" long text. `rows`: cells of text or elements.
const table = (caption, columns, rows, chosen) => {
  const kind = (name) => (name.startsWith("#") ? "number" : name.startsWith("~") ? "wide" : undefined);
  const head = columns.map((name) => el("th", { scope: "col", class: kind(name) === "number" && "number" }, name.replace(/^[#~]/, "")));
  const body = rows.map((row, i) =>
    el("tr", { class: chosen && chosen(i) && "chosen" }, row.map((cell, c) => el("td", { class: kind(columns[c]) }, cell))));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", null, el("caption", { class: "sr" }, caption), el("thead", null, el("tr", null, head)), el("tbody", null, body)));
};
const asTable = (caption, columns, rows) => el("details", null, el("summary", null, "As a table"), table(caption, columns, rows));

const section = (title, lead, ...children) =>
  el("section", { "aria-label": title }, el("h2", null, title), lead && el("p", { class: "quiet" }, lead), children);

const spoken = el("div", { class: "sr", role: "status", "aria-live": "polite" });
const say = (text) => { spoken.textContent = text; };

const copyText = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {  // no permission, or no clipboard on this kind of page: the old way
    const area = el("textarea", { class: "sr", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
};
const copyButton = (text, what) => {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${what}`, click: async () => {
    const done = await copyText(text);
    button.textContent = done ? "Copied" : "Select and copy by hand";
    say(done ? `${what} copied` : "copying is not allowed here");
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  } }, "Copy");
  return button;
};
const command = (what, line) =>
  el("div", { class: "command" }, el("div", null, el("div", { class: "quiet" }, what), el("pre", { tabindex: 0 }, line)), copyButton(line, what));
