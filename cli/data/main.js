// Reads the data and draws the page that its schema names.
const kPages = { "drydock.report": reportPage, "drydock.plot": plotPage };
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
page.replaceChildren();
document.body.append(spoken);
kPages[data.schema](data, page);
page.append(el("footer", null, `Made by drydock ${data.drydock}. This page is complete: it loads nothing from a network. Charts by Chart.js ${Chart.version}, MIT licence.`));
paintNew();
document.documentElement.dataset.ready = "yes";
