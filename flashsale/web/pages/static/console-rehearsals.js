// Rehearsing a sale: one press begins it; the copy's live figures, then what the auditor says.

import { $, ask, busy, el, enter, figure, fill, n, ops, tell, tellOf } from "./console.js";
import { clear, complete, explain } from "./console-fields.js";
import { Live, liveHost } from "./console-live.js";
import { wordOf } from "./console-verdicts.js";
import { say, when } from "./page.js";

const path = `/v1/ops/drops/${$("page").dataset.drop}/rehearsals`;
const LOOK_MS = 1000;
const AUDIT_LOOKS_MAX = 120; // the auditor looks when the crowd has gone home
let live = null;
let shown = null;

const auditWord = (audit) => (audit === null ? say("audit.none") : say(audit.true ? "audit.true" : "audit.false"));

function audit(found) {
  $("audit").hidden = found === null;
  if (found === null) return;
  $("audit-word").dataset.state = found.true ? "good" : "bad";
  $("audit-word").textContent = auditWord(found);
  fill($("checks").tBodies[0], (found.checks ?? []).map((check) => {
    const judged = check.judged ?? true;
    const kind = check.contradiction ? "dead" : judged ? "open" : "";
    return [
      check.invariant, el("td", { "data-cell": "1", lang: "en" }, check.line), el("td", { "data-cell": "1", lang: "en" }, check.contradiction ?? check.found),
      el("td", { "data-cell": "1", class: "state", "data-state": kind }, say(check.contradiction ? "broken" : judged ? "holds" : "unjudged")),
    ];
  }));
}

function show(one) {
  const fresh = shown !== one.id;
  shown = one.id;
  $("one").hidden = false;
  const running = one.state === "running";
  $("one-title").textContent = when(Date.parse(one.started_at));
  $("state").dataset.state = { running: "running", failed: "paused", done: "done" }[one.state] ?? "closed";
  $("state").textContent = say(`r.${one.state}`);
  $("stop-it").hidden = !running;
  $("progress").hidden = !running;
  $("progress").value = one.progress.pressed / (one.asked.members || 1);
  $("pressed").textContent = n(one.progress.pressed);
  $("confirmed").textContent = n(one.progress.confirmed);
  $("heard").replaceChildren(...Object.entries(one.progress.heard).map(([word, count]) => el("div", {}, el("dt", {}, wordOf(word)), el("dd", {}, n(count)))));
  $("notes").replaceChildren(...one.notes.map((note) => el("li", { "data-kind": "advice", lang: "en" }, el("span", { class: "sign", "aria-hidden": "true" }), el("span", {}, note))));
  audit(one.audit);
  if (running && fresh) {
    live ??= new Live(liveHost());
    live.open(one.copy);
  }
  if (!running) live?.close();
}

/** Look again and again, until it is over. */
async function follow(id) {
  for (let after = 0; after < AUDIT_LOOKS_MAX; ) {
    const answer = await ask(`${path}/${id}`);
    if (!tellOf(answer) || (shown !== null && shown !== id)) return;
    show(answer.body);
    const { state, audit: found, notes } = answer.body;
    if (state !== "running") after += 1;
    if (state !== "running" && (found !== null || notes.length)) break;
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
  await list();
}

async function list() {
  const answer = await ask(`${path}?limit=20`);
  if (!tellOf(answer)) return null;
  const { items } = answer.body;
  $("none").hidden = items.length > 0;
  fill($("before").tBodies[0], items.map((one) => {
    const time = when(Date.parse(one.started_at));
    const open = () => {
      shown = null;
      follow(one.id);
      $("one-title").focus();
    };
    return [
      time, say(`r.${one.state}`), figure(one.progress.pressed),
      el("td", { "data-cell": "1", class: "verdict", "data-state": one.audit ? (one.audit.true ? "good" : "bad") : "" }, auditWord(one.audit)), one.by,
      el("td", { "data-cell": "1", class: "acts" }, el("button", { type: "button", "aria-label": say("show.of", { time }), click: open }, say("show"))),
    ];
  }));
  return items;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("start"), async () => {
    tell("");
    clear($("form"));
    if (!complete($("form"))) return;
    const data = { members: Number($("members").value), over_s: Number($("over").value), opens_in_s: Number($("opens").value), confirm_share: Number($("share").value) / 100 };
    const answer = await ops("POST", path, { data });
    if (!answer.ok && explain($("form"), answer)) return;
    if (!tellOf(answer, say("begun"))) return;
    shown = null;
    show(answer.body);
    follow(answer.body.id);
    $("one-title").focus();
    list();
  });
});
$("stop-it").addEventListener("click", () => busy($("stop-it"), async () => {
  const answer = await ops("POST", `${path}/${shown}/stop`, { data: {} });
  if (tellOf(answer)) show(answer.body);
}));

enter(async () => {
  const drop = await ask(path.replace(/\/rehearsals$/, ""));
  if (drop.ok) $("title").textContent = drop.body.title;
  const items = await list();
  if (!items?.length) return;
  if (items[0].state === "running") follow(items[0].id);
  else show(items[0]);
});
