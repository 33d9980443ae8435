// The audit log: who did what, when, on what, and why.

import { $, ask, busy, el, enter, fill, tell, tellOf } from "./console.js";
import { clear, complete, explain } from "./console-fields.js";
import { queryOf, restore } from "./console-filters.js";

const lines = [];
const form = $("filters");
const clock = new Intl.DateTimeFormat(document.documentElement.lang, {
  timeZone: document.documentElement.dataset.zone, year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const cell = (text, name = "") => el("td", { "data-cell": "1", class: name }, el("code", {}, text));

function details(detail) {
  return Object.entries(detail).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(" · ");
}

async function page(after = "") {
  const query = queryOf(form);
  $("export").href = `/v1/ops/audit.csv?${query}`;
  query.set("limit", "100");
  if (after) query.set("after", after);
  const answer = await ask(`/v1/ops/audit?${query}`);
  if (!answer.ok) {
    if (!explain(form, answer)) tellOf(answer);
    return;
  }
  if (!after) lines.length = 0;
  lines.push(...answer.body.items);
  fill($("list").tBodies[0], lines.map((line) => [clock.format(Date.parse(line.at)), line.actor, cell(line.action), cell(line.subject), cell(details(line.detail), "detail")]));
  $("none").hidden = lines.length > 0;
  $("more").hidden = !answer.body.next;
  $("more").onclick = () => page(answer.body.next);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("search"), async () => {
    tell("");
    clear(form);
    if (!complete(form)) return;
    history.replaceState(null, "", `?${queryOf(form)}`);
    await page();
  });
});

enter(() => {
  restore(form);
  return page();
});
