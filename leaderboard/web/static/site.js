// Convenience only: every page works without this script. Filters apply as soon as they are chosen.
"use strict";
for (const form of document.querySelectorAll("form.filters:not(.try)")) {
  form.addEventListener("change", (event) => {
    if (event.target.matches("select, input[type=checkbox]")) form.requestSubmit();
  });
  // Empty fields are left out of the address, so that a copied link is short.
  form.addEventListener("submit", () => {
    for (const field of form.elements) {
      const standard = { columns: "summary", tier: "all" }[field.name];
      if (field.value === "" || field.value === standard) field.disabled = true;
    }
    setTimeout(() => { for (const field of form.elements) field.disabled = false; });
  });
}
// On the API page: path parameters come from their fields, and empty fields are left out of the address.
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
// Interactive charts: Vega in its own interpreter, loaded when a reader asks for it.
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Make it interactive";
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      if (!window.vegaEmbed) {
        await new Promise((resolve, reject) => {
          const program = document.createElement("script");
          program.src = figure.dataset.program;
          program.onload = resolve;
          program.onerror = reject;
          document.head.append(program);
        });
      }
      const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const specification = await (await fetch(`${figure.dataset.chart}&theme=${theme}`)).json();
      specification.width = "container";
      // The wheel and dragging move both axes; one layer carries the selection for all of them.
      const points = specification.layer.find((layer) => layer.mark.type === "point");
      points.params = [{ name: "view", select: "interval", bind: "scales" }];
      const place = document.createElement("div");
      place.className = "place";
      figure.querySelector("svg").replaceWith(place);
      await window.vegaEmbed(place, specification, {
        ast: true, actions: false, defaultStyle: false, renderer: "canvas",
        tooltip: (_handler, _event, _item, value) => {
          place.title = value ? Object.entries(value).map(([key, text]) => `${key}: ${text}`).join("\n") : "";
        },
      });
      button.remove();
    } catch {
      button.textContent = "The interactive chart could not be loaded";
    }
  });
  figure.querySelector("figcaption").append(button);
}
