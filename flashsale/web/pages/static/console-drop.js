// One drop: its allocations, its pre-flight list, what shoppers read, what was done.

import { $, ask, busy, el, enter, fill, figure, mayChange, n, ops, tell, tellOf } from "./console.js";
import { clear, complete, explain, toAmount } from "./console-fields.js";
import { look, previewForm } from "./console-preflight.js";
import { LaneSwitch, Switches } from "./console-switches.js";
import { draw, whoOf } from "./console-timeline.js";
import { Units } from "./console-units.js";
import { getPicture, getTexts, setTexts } from "./console-words.js";
import { has, say, span, when } from "./page.js";

const id = $("page").dataset.drop;
const path = `/v1/ops/drops/${id}`;
const REFRESH_MS = 5000;

/** The drop as it was read, and its tag. */
const state = { drop: null, etag: null };

function show(drop, etag) {
  state.drop = drop;
  if (etag) state.etag = etag;
  $("title").textContent = drop.title;
  const price = new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency: drop.price.currency }).format(Number(toAmount(drop.price)));
  const facts = [say("facts", { price, n: n(drop.per_member), s: n(drop.hold_seconds) })];
  if (drop.fcodes_stopped) facts.push(say("facts.stopped"));
  $("facts").textContent = facts.join(" · ");
  draw($("timeline"), drop.allocations, Date.parse(drop.server_time));
  const rows = drop.allocations.map((a) => [
    el("th", { scope: "row", "data-cell": "1" }, a.id, a.channel ? el("span", { class: "soft" }, ` ${a.channel}`) : null),
    figure(a.available), figure(a.taken), figure(a.quantity),
    el("td", { "data-cell": "1", class: "state", "data-state": a.state }, say(`s.${a.state}`)),
    span(Date.parse(a.opens_at), Date.parse(a.closes_at)),
    whoOf(a.access),
    el("td", { "data-cell": "1", class: "acts change" }, el("button", { type: "button", "aria-label": say("edit.of", { allocation: a.id }), click: () => units.edit(a.id) }, say("edit"))),
  ]);
  const held = document.activeElement?.closest("#allocations") ? [...$("allocations").querySelectorAll("button")].indexOf(document.activeElement) : -1;
  fill($("allocations").tBodies[0], rows);
  if (held >= 0) $("allocations").querySelectorAll("button")[held]?.focus();
  units.show(drop);
  lane.show(drop);
}

/** What changed by ourselves is shown everywhere, the forms included. */
function changed(drop, etag) {
  show(drop, etag);
  forms(drop);
  look(path);
  marks();
}

let read = "";

/** What stands in the forms is replaced only when it was changed: what somebody types meanwhile stays. */
function forms(drop) {
  const now = JSON.stringify([drop.title, drop.texts, drop.picture]);
  if (now === read) return;
  read = now;
  $("plain-title").value = drop.title;
  setTexts(drop.texts, drop.picture);
  for (const language of ["zh", "en"]) $(`notice-${language}`).value = drop.texts[language]?.notice ?? "";
}

async function marks() {
  const { ok, body } = await ops("GET", `${path}/timeline`);
  if (!ok) return;
  fill($("marks").tBodies[0], body.marks.slice().reverse().map((mark) => [
    when(Date.parse(mark.at)), el("td", { "data-cell": "1" }, el("code", {}, mark.action)), mark.actor, el("td", { "data-cell": "1", class: "detail" }, el("code", {}, JSON.stringify(mark.detail))),
  ]));
}

/** A form that changes the drop itself. */
function onSave(form, button, work) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    busy($(button), async () => {
      tell("");
      clear($(form));
      if (!complete($(form))) return;
      const [data, done] = (await work()) ?? [];
      if (!data) return;
      const answer = await ops("PATCH", path, { data, etag: state.etag });
      if (answer.ok || !explain($(form), answer)) tellOf(answer, done);
      if (answer.ok) changed(answer.body, answer.etag);
    });
  });
}

onSave("notice", "notice-save", () => {
  const texts = {};
  for (const language of ["zh", "en"]) {
    const { notice, ...kept } = state.drop.texts[language] ?? {};
    const said = $(`notice-${language}`).value.trim();
    texts[language] = said ? { ...kept, notice: said } : kept;
  }
  return [{ texts }, say("published")];
});
onSave("words-form", "words-save", async () => {
  const picture = await getPicture();
  if (picture === undefined) return null;
  return [{ title: $("plain-title").value.trim(), texts: getTexts(state.drop.texts), picture }, say("saved")];
});

const lane = new LaneSwitch(path, (drop) => changed(drop, null));
const units = new Units(path, state, changed);

/** Figures move by themselves; forms stay as they are, and so does the tag that they were read under. */
async function refresh() {
  if (!document.hidden) {
    const answer = await ops("GET", path);
    if (answer.ok) {
      const { epoch } = state.drop;
      show(answer.body, null);
      switches.be(answer.body);
      if (answer.body.epoch !== epoch) document.dispatchEvent(new Event("console:missing"));
    }
  }
  setTimeout(refresh, REFRESH_MS);
}

const switches = new Switches(id, (drop, etag) => drop !== state.drop && changed(drop, etag));
$("look").addEventListener("click", () => busy($("look"), () => look(path)));
document.addEventListener("console:missing", () => look(path));
previewForm(path);

enter(async () => {
  const answer = await ask(path);
  if (!tellOf(answer)) {
    $("title").textContent = answer.status === 404 && has("c.none") ? id : $("title").textContent;
    return;
  }
  switches.show(answer.body, answer.etag);
  if (!mayChange()) for (const field of document.querySelectorAll("#notice input, #words-form input, #words-form textarea")) field.disabled = true;
  const known = await ops("GET", "/v1/ops/points?limit=100");
  for (const { snapshot } of known.body?.items ?? []) $("snapshots").append(el("option", { value: snapshot }));
  setTimeout(refresh, REFRESH_MS);
});
