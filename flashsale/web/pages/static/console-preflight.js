// The pre-flight list of a drop, and what a press of any member would hear at any moment.

import { $, busy, el, fill, ops, tellOf } from "./console.js";
import { wordOf } from "./console-verdicts.js";
import { clear, complete, explain, fromField } from "./console-fields.js";
import { has, say } from "./page.js";

/** Read and show the list: what blocks first, then what is worth a look, then what is in order. */
export async function look(path) {
  const answer = await ops("GET", `${path}/preflight`);
  if (!tellOf(answer)) return;
  const rank = (item) => (item.ok ? 2 : item.blocking ? 0 : 1);
  const items = answer.body.items.slice().sort((a, b) => rank(a) - rank(b));
  const blocking = items.filter((item) => rank(item) === 0).length;
  $("ready").dataset.state = blocking ? "bad" : "good";
  $("ready").textContent = blocking ? say(answer.body.held ? "not_ready" : "not_in_order", { n: blocking }) : say("ready");
  const kinds = ["blocks", "advice", "ok"];
  $("checks").replaceChildren(...items.map((item) => {
    const kind = kinds[rank(item)];
    const name = has(`p.${item.id}`) ? say(`p.${item.id}`) : item.id;
    return el("li", { "data-kind": kind },
      el("span", { class: "sign", "aria-hidden": "true" }),
      el("span", { class: "what" }, el("strong", {}, item.allocation ? `${name} · ${item.allocation}` : name), ` ${say(`check.${kind}`)}`),
      el("span", { class: "why" }, item.detail));
  }));
}

/** The form that asks what a member would hear. */
export function previewForm(path) {
  const form = $("preview");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("preview-ask"), async () => {
      clear(form);
      if (!complete(form)) return;
      const query = new URLSearchParams({ member: $("preview-member").value.trim(), tier: $("preview-tier").value.trim(), with_code: String($("preview-code").checked) });
      const at = fromField($("preview-at").value);
      if (at) query.set("at", at);
      const answer = await ops("GET", `${path}/preview?${query}`);
      if (!answer.ok) {
        if (!explain(form, answer)) tellOf(answer);
        return;
      }
      fill($("seen").tBodies[0], answer.body.allocations.map((a) => [
        a.id, el("td", { "data-cell": "1", class: "state", "data-state": a.verdict }, wordOf(a.verdict)), el("td", { "data-cell": "1" }, a.detail),
      ]));
      $("preview-box").hidden = false;
    });
  });
}
