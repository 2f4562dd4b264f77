// Comfort only: without this script every page works the same. Filters apply as soon as they are chosen.
"use strict";
for (const form of document.querySelectorAll("form.filters:not(.try)")) {
  form.addEventListener("change", (event) => {
    if (event.target.matches("select, input[type=checkbox]")) form.requestSubmit();
  });
  // Empty fields stay out of the address, so that a copied link is short.
  form.addEventListener("submit", () => {
    for (const field of form.elements) {
      const standard = { columns: "ranking", tier: "all" }[field.name];
      if (field.value === "" || field.value === standard) field.disabled = true;
    }
    setTimeout(() => { for (const field of form.elements) field.disabled = false; });
  });
}
// On the page about the API: the parts of a path come out of their fields, and what is empty stays out of the address.
for (const form of document.querySelectorAll("form.try")) {
  form.hidden = false;
  form.addEventListener("submit", () => {
    if (form.dataset.path) {
      form.action = form.dataset.path.replace(/\{(\w+)(:path)?\}/g, (_part, name) => {
        const value = form.querySelector(`[data-part="${name}"]`).value.trim();
        return value.split("/").map(encodeURIComponent).join("/");
      });
    }
    for (const field of form.querySelectorAll("[name]")) field.disabled = field.value === "";
    setTimeout(() => { for (const field of form.elements) field.disabled = false; });
  });
}
for (const block of document.querySelectorAll("pre.command")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.innerText);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const frame = document.createElement("div");
  frame.className = "with-copy";
  block.replaceWith(frame);
  frame.append(block, button);
}
// The interactive chart: Vega in its interpreter, loaded only for those who ask for it.
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Make it interactive";
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      if (!window.vegaEmbed) {
        await new Promise((done, failed) => {
          const program = document.createElement("script");
          program.src = figure.dataset.program;
          program.onload = done;
          program.onerror = failed;
          document.head.append(program);
        });
      }
      const specification = await (await fetch(figure.dataset.chart)).json();
      const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const lines = { gridColor: color("--line"), domainColor: color("--line"), tickColor: color("--line") };
      const place = document.createElement("div");
      place.className = "place";
      const still = figure.querySelector("svg");
      still.replaceWith(place);
      await window.vegaEmbed(place, specification, {
        ast: true, actions: false, defaultStyle: false, renderer: "canvas",
        tooltip: (_handler, _event, _item, value) => {
          place.title = value ? Object.entries(value).map(([key, text]) => `${key}: ${text}`).join("\n") : "";
        },
        config: {
          axis: { ...lines, labelColor: color("--quiet"), titleColor: color("--ink"), titleFontWeight: "normal" },
          legend: { orient: "top", labelColor: color("--ink") },
          rule: { color: color("--good") }, line: { color: color("--accent") },
          range: { category: [color("--accent"), color("--quiet"), color("--good")] },
          view: { stroke: null },
        },
      });
      button.remove();
    } catch {
      button.textContent = "The interactive chart could not be loaded";
    }
  });
  figure.querySelector("figcaption").append(button);
}
