// Draws the charts of a page of the static site, in the page's colours, and sorts tables by a click on a header.
"use strict";

const drawn = () => {
  const ink = getComputedStyle(document.body).color;
  for (const chart of document.querySelectorAll(".chart")) {
    const figure = JSON.parse(chart.dataset.figure ??= chart.querySelector("script").textContent);
    const layout = { ...figure.layout, template: {}, font: { color: ink, family: "system-ui, sans-serif", size: 12 } };
    const picture = { format: "png", scale: 3, filename: chart.dataset.name };
    Plotly.react(chart, figure.data, layout, { displaylogo: false, responsive: true, toImageButtonOptions: picture });
  }
};

const sorted = (header) => {
  const [body, at] = [header.closest("table").tBodies[0], header.cellIndex];
  const down = header.dataset.down !== "yes";
  header.dataset.down = down ? "yes" : "no";
  const value = (row) => row.cells[at].textContent;
  const order = (a, b) => (value(a) - value(b)) || value(a).localeCompare(value(b), undefined, { numeric: true });
  body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * order(a, b)));
};

for (const header of document.querySelectorAll(".sortable th")) header.addEventListener("click", () => sorted(header));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawn);
drawn();
