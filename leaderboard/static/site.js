// Comfort only: without this script every page works the same. Filters apply as soon as they are chosen.
"use strict";
for (const form of document.querySelectorAll("form.filters")) {
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
