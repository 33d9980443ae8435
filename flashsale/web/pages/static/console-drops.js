// All drops: those that run first, then those to come, then those that are over.

import { $, ask, el, enter, fill, figure, lang, tellOf } from "./console.js";
import { say, when } from "./page.js";

const PAGE = 200;
const drops = [];
const ORDER = ["running", "paused", "held", "upcoming", "over", "closed"];

function stateOf(drop) {
  if (drop.closed) return "closed";
  if (drop.held) return "held";
  if (drop.paused) return "paused";
  const now = Date.parse(drop.server_time);
  if (drop.allocations.every((a) => Date.parse(a.closes_at) <= now)) return "over";
  return drop.allocations.some((a) => Date.parse(a.opens_at) <= now) ? "running" : "upcoming";
}

const opensOf = (drop) => Math.min(...drop.allocations.map((a) => Date.parse(a.opens_at)));

function row(drop) {
  const sum = (name) => drop.allocations.reduce((all, a) => all + (a[name] ?? 0), 0);
  const unknown = drop.allocations.some((a) => a.available === null);
  const state = stateOf(drop);
  const path = `/${lang}/ops/drops/${drop.id}`;
  return [
    el("th", { scope: "row", "data-cell": "1" }, el("a", { href: path }, drop.title, el("code", {}, drop.id))),
    el("td", { "data-cell": "1" }, el("span", { class: "pill", "data-state": state }, say(`pill.${state}`))),
    when(opensOf(drop)),
    figure(unknown ? null : sum("available")),
    figure(sum("taken")),
    figure(sum("quantity")),
    el("td", { class: "acts", "data-cell": "1" },
      el("a", { class: "button", href: `${path}/live`, "aria-label": say("live.of", { drop: drop.id }) }, say("live")),
      el("a", { class: "button change", href: `/${lang}/ops/new?copy=${drop.id}`, "aria-label": say("copy.of", { drop: drop.id }) }, say("copy"))),
  ];
}

async function page(after = "") {
  const answer = await ask(`/v1/ops/drops?limit=${PAGE}${after}`);
  if (!tellOf(answer)) return;
  drops.push(...answer.body.items);
  const rank = (drop) => ORDER.indexOf(stateOf(drop));
  const late = (drop) => rank(drop) >= ORDER.indexOf("over");
  drops.sort((a, b) => rank(a) - rank(b) || (late(a) ? opensOf(b) - opensOf(a) : opensOf(a) - opensOf(b)));
  fill($("drops").tBodies[0], drops.map(row));
  $("none").hidden = drops.length > 0;
  $("drops").hidden = !drops.length;
  $("more").hidden = !answer.body.next;
  $("more").onclick = () => page(`&after=${encodeURIComponent(answer.body.next)}`);
}

enter(() => page());
