// Setting up a drop, from nothing or from a past one (?copy=drop).

import { $, ask, busy, el, enter, lang, mayChange, ops, tell, tellOf } from "./console.js";
import { AllocationFields } from "./console-allocation.js";
import { blame, clear, complete, explain, fromAmount, toAmount } from "./console-fields.js";
import { draw } from "./console-timeline.js";
import { getPicture, getTexts, setTexts } from "./console-words.js";
import { say } from "./page.js";

const form = $("form");
const list = [];

function redraw() {
  list.forEach((each, at) => {
    each.place(at, say("allocation", { n: at + 1 }));
    each.root.querySelector(".remove").hidden = list.length === 1;
  });
  draw($("timeline"), list.map((each) => each.get()), Date.now());
}

function add(values) {
  const fields = new AllocationFields(redraw);
  list.push(fields);
  if (values) fields.set(values);
  $("allocations").append(fields.root);
  fields.root.querySelector(".remove").addEventListener("click", () => {
    list.splice(list.indexOf(fields), 1);
    fields.root.remove();
    redraw();
    $("add").focus();
  });
  redraw();
  return fields;
}

/** The next noon that is more than an hour away, and an hour later. */
function soon() {
  const day = 86400000;
  const opens = Math.ceil((Date.now() + 3600000) / 3600000) * 3600000;
  return { opens_at: new Date(opens).toISOString(), closes_at: new Date(opens + day).toISOString(), id: "a", quantity: 100 };
}

function take(draft) {
  $("id").value = draft.id;
  $("plain-title").value = draft.title;
  $("currency").value = draft.price.currency;
  $("price").value = toAmount(draft.price);
  $("list-price").value = draft.list_price ? toAmount(draft.list_price) : "";
  $("per-member").value = draft.per_member;
  $("hold").value = draft.hold_seconds;
  $("stripes").value = draft.stripes ?? 1;
  $("rebuy").checked = draft.rebuy_after_return;
  setTexts(draft.texts ?? {}, draft.picture ?? null);
  draft.allocations.forEach(add);
}

async function body() {
  const currency = $("currency").value.trim();
  const money = (field) => ({ amount: fromAmount(field.value, currency), currency });
  const price = money($("price"));
  const before = $("list-price").value.trim() ? money($("list-price")) : null;
  for (const [field, of] of [[$("price"), price], [$("list-price"), before]]) {
    if (of && Number.isNaN(of.amount)) {
      blame(field, say("amount")).focus();
      return null;
    }
  }
  const picture = await getPicture();
  if (picture === undefined) return null;
  return {
    id: $("id").value.trim(),
    title: $("plain-title").value.trim(),
    price,
    list_price: before,
    per_member: Number($("per-member").value),
    hold_seconds: Number($("hold").value),
    stripes: Number($("stripes").value),
    rebuy_after_return: $("rebuy").checked,
    texts: getTexts(),
    picture,
    hold: true,
    allocations: list.map((each) => each.get()),
  };
}

async function save() {
  tell("");
  clear(form);
  if (!complete(form)) return tell(say("wrong"), "bad");
  const data = await body();
  if (data === null) return tell(say("wrong"), "bad");
  const answer = await ops("POST", "/v1/ops/drops", { data });
  if (answer.ok) return location.assign(`/${lang}/ops/drops/${answer.body.id}`);
  if (explain(form, answer)) return tell(say("wrong"), "bad");
  return tellOf(answer);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("save"), save);
});
$("add").addEventListener("click", () => {
  const { id, ...values } = list.length ? list[list.length - 1].get() : soon();
  add({ ...values, id: "" }).fields.id.focus();
});

enter(async () => {
  $("forbidden").hidden = mayChange();
  const from = new URLSearchParams(location.search).get("copy");
  if (from) {
    const answer = await ask(`/v1/ops/drops/${encodeURIComponent(from)}/copy`);
    if (tellOf(answer)) take(answer.body);
  }
  if (!list.length) add(soon());
  const known = await ops("GET", "/v1/ops/points?limit=100");
  for (const { snapshot } of known.body?.items ?? []) $("snapshots").append(el("option", { value: snapshot }));
});
