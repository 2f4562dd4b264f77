// The moderation page. The token is a variable of this script: it is in no cookie, storage or address.
"use strict";
{
  let token = "";
  const find = (id) => document.getElementById(id);
  const say = (text) => { find("status").textContent = text; };

  async function call(path, body) {
    const options = { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" };
    if (body) {
      options.method = "POST";
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    const root = new URL("../", document.querySelector('script[src*="moderate.js"]').src);
    const answer = await fetch(new URL(`api/v1/${path}`, root), options);
    const content = answer.status === 204 ? null : await answer.json();
    if (!answer.ok) throw new Error([content.detail, ...(content.errors || []).map((item) => item.message)].join(" "));
    return content;
  }

  async function show() {
    const items = await call("moderation");
    const rows = items.map((item) => {
      const row = document.createElement("tr");
      for (const text of [`${item.id} ${item.label}`, item.task, item.submitter, item.state, item.reason]) {
        row.insertCell().textContent = text;
      }
      if (!item.id.startsWith("job ")) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = "Choose";
        button.setAttribute("aria-label", `Choose ${item.id}`);
        button.addEventListener("click", () => { find("entry").value = item.id; find("action").focus(); });
        row.cells[0].append(" ", button);
      }
      return row;
    });
    find("items").replaceChildren(...rows);
    find("queue").hidden = false;
    return items.length ? `${items.length} in the queue.` : "The moderation queue is empty.";
  }

  find("sign-in").addEventListener("submit", async (event) => {
    event.preventDefault();
    token = find("token").value.trim();
    find("token").value = "";
    try { say(await show()); } catch (error) { find("queue").hidden = true; say(error.message); }
  });

  find("act").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [entry, action, reason] = ["entry", "action", "reason"].map((id) => find(id).value.trim());
    if (action === "purge" && !window.confirm(`Erase the texts and the evidence of ${entry} for good?`)) return;
    const path = action === "acknowledge" || action === "purge" ? action : "state";
    try {
      await call(`submissions/${encodeURIComponent(entry)}/${path}`, path === "state" ? { state: action, reason } : { reason });
      find("act").reset();
      say(`Done: ${entry}, ${action}. ${await show()}`);
    } catch (error) { say(error.message); }
  });
}
