// One batch of F-codes: its codes by state, who spent which, export, cards, revoking.

import { $, ask, askBack, busy, el, enter, fill, n, ops, tell, tellOf } from "./console.js";
import { clear, complete, explain } from "./console-fields.js";
import { say, when } from "./page.js";

const path = `/v1/ops/fcodes/${$("page").dataset.batch}`;
const COUNTS = ["unspent", "held", "confirmed", "returned", "revoked"];
const spent = [];

function facts(b) {
  const end = b.expires_at === null ? null : Date.parse(b.expires_at);
  const state = b.revoked_at ? "revoked" : end !== null && end <= Date.now() ? "ended" : "valid";
  $("pill").dataset.state = state === "valid" ? "running" : "closed";
  $("pill").textContent = say(state);
  const rows = [
    [say("b.for"), `${b.drop} / ${b.allocation}`], [say("b.kind"), say(b.bound ? "bound" : "bearer")], [say("b.count"), n(b.count)],
    ...COUNTS.map((name) => [say(`b.${name}`), n(b.counts[name])]),
    [say("b.until"), end === null ? say("no_end") : when(end)], [say("b.note"), b.note ?? "–"], [say("b.key"), b.key],
  ];
  $("facts").replaceChildren(...rows.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

async function page(after = "") {
  const answer = await ask(`${path}?limit=100${after}`);
  if (!tellOf(answer)) return;
  if (!after) spent.length = 0;
  facts(answer.body);
  spent.push(...answer.body.spent);
  fill($("spent").tBodies[0], spent.map((one) => [
    el("th", { scope: "row", class: "num", "data-cell": "1" }, String(one.serial)), String(one.member), say(`r.${one.state}`), when(Date.parse(one.at)),
    el("td", { "data-cell": "1" }, el("code", {}, one.reservation)),
  ]));
  $("none").hidden = spent.length > 0;
  $("more").hidden = !answer.body.next;
  $("more").onclick = () => page(`&after=${answer.body.next}`);
}

async function revoke() {
  tell("");
  clear($("revoke"));
  if (!complete($("revoke"))) return;
  const meant = await askBack($("revoke-it"), { title: say("revoke.title"), text: say("revoke.text"), yes: say("revoke.yes"), danger: true });
  if (!meant) return;
  const serials = $("serials").value.split(/[ ,]+/).filter(Boolean).map(Number);
  const data = { reason: $("reason").value.trim() };
  if (serials.length) data.serials = serials;
  if ($("to").value.trim()) data.to_allocation = $("to").value.trim();
  const answer = await ops("POST", `${path}/revoke`, { data });
  if (!answer.ok && explain($("revoke"), answer)) return;
  if (tellOf(answer, answer.ok ? say("revoke.done", { n: n(answer.body.revoked) }) : "")) await page();
}

$("revoke").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("revoke-it"), revoke);
});

enter(() => page());
