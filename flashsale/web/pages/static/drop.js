// A drop: puts together what is known of it, moment by moment, and shows what the shopper sees and may do.

import { Clock } from "./clock.js";
import { groupField, grouped, parse } from "./fcode.js";
import { call, passing, signedIn, waitFor } from "./net.js";
import { clock as time, day, down, has, inWords, lang, say, showMember, signInPath, span } from "./page.js";
import { Press, settle } from "./press.js";
import { kept, nextOpening, panel, room, stateOf, target } from "./states.js";
import { Watch } from "./watch.js";

const MINUTE = 60000;
const HOLD_SAID = [300000, 120000, 60000, 40000, 20000];
const OPENING_SAID = [600000, 300000, 60000, 10000];
const CHECK_BEFORE = 10 * MINUTE;
const FLASH_MS = 30000;
const FLASH_FOR = new Set(["sold_out", "closed"]); // what the status tells as well
const AT_THE_CODE = { fcode_invalid: "fcode.invalid", fcode_spent: "fcode.spent" };

const $ = (id) => document.getElementById(id);
const [act, title, count, text, notice, buy, more, terms, live] = [
  ...["act", "act-title", "act-count", "act-text", "notice", "buy", "more", "terms", "live"].map($),
];
const drop = $("drop").dataset.drop;
const payment = act.dataset.confirm === "payment";
const limit = Number(act.dataset.limit);
const many = $("many"); // where a member may have several
const form = $("fcode");

const batches = [...document.querySelectorAll("#batches li")].map((li) => ({
  li,
  id: li.dataset.id,
  kind: li.dataset.kind,
  opens: Date.parse(li.dataset.opens),
  closes: Date.parse(li.dataset.closes),
  state: "upcoming",
  soldAt: 0,
}));

let me = null;
let signed = signedIn();
let flash = null;
let settling = null;
let early = null; // a code that was sent before it was known who asks
let shown = {};
let said = { left: null, at: Infinity };
let tick = 0;
let asking = null;
let again = false;
let askedAt = 0;
const checkEarlier = Math.random() * MINUTE;

const clock = new Clock(`/v1/drops/${drop}/clock`);
const press = new Press(drop, render, onverdict);
const watch = new Watch(drop, onstatus, onallocation);

/* What is heard */

function onallocation(heard, at = clock.ready ? clock.now() : 0) {
  const batch = batches.find((b) => b.id === heard.id);
  if (!batch) return;
  const [opens, closes] = [Date.parse(heard.opens_at), Date.parse(heard.closes_at)];
  if (opens !== batch.opens || closes !== batch.closes) {
    [batch.opens, batch.closes] = [opens, closes];
    batch.li.querySelector(".when").textContent = span(opens, closes);
  }
  if (heard.state === "open" && at < batch.soldAt + 1500) return; // older than the verdict
  batch.back = heard.state === "open" && (batch.back || batch.state === "sold_out");
  batch.state = heard.state;
  render();
}

function onstatus(status) {
  const at = Date.parse(status.server_time);
  for (const each of status.allocations) {
    const batch = batches.find((b) => b.id === each.id);
    if (batch) batch.backBy = each.back_by ? Date.parse(each.back_by) : undefined;
    onallocation(each, at);
  }
  const words = status.notice[lang] ?? status.notice[lang === "zh" ? "en" : "zh"] ?? "";
  if (notice.textContent !== words) {
    notice.textContent = words;
    notice.hidden = !words;
    if (words) tell(words);
  }
  const here = (each) => !each.channel || each.channel === $("drop").dataset.channel;
  const added = status.allocations.filter((each) => here(each) && !batches.some((b) => b.id === each.id));
  for (const each of added) addBatch(each);
  if (added.length && me) setTimeout(askMine, Math.random() * 1000 * status.spread_s); // may I buy from it?
  if (flash?.state === "fewer" && !target(batches, me, at)) flash = null; // there are none
  render();
}

/** A batch that an operator has added since the page was made. */
function addBatch({ id, opens_at: from, closes_at: to, access, state }) {
  const li = document.createElement("li");
  for (const name of ["when", "who", "state"]) {
    const part = document.createElement("span");
    part.className = name;
    li.append(part, " ");
  }
  const [opens, closes] = [Date.parse(from), Date.parse(to)];
  li.querySelector(".when").textContent = span(opens, closes);
  li.querySelector(".who").textContent = say(`who.${access.kind}`, { n: access.at_least });
  $("batches").append(li);
  batches.push({ li, id, kind: access.kind, opens, closes, state, soldAt: 0 });
}

/** Ask what is mine. Who asks meanwhile is answered by one more call, after this one. */
function askMine() {
  again = asking !== null;
  asking ??= loadMine().finally(() => {
    asking = null;
    if (again) askMine();
  });
  return asking;
}

async function loadMine() {
  if (!signedIn()) {
    [me, signed] = [null, false];
    showMember(null);
    return render();
  }
  for (let tries = 1; ; tries += 1) {
    const { status, body, retryAfter } = await call("GET", `/v1/me/drops/${drop}`);
    if (passing(status)) {
      await new Promise((done) => setTimeout(done, waitFor(retryAfter, tries) * 1000));
      continue;
    }
    signed = status === 200;
    if (clock.ready) askedAt = clock.now();
    me = signed ? body : null;
    showMember(me?.member);
    if (me && form && me.fcodes && !$("code-error").textContent) $("code-hint").textContent = say("fcode.mine");
    if (me && kept(me, clock.ready ? clock.now() : 0).held) press.stop();
    else if (me && early) press.start(me.member, { fcode: early });
    else if (me) press.resume(me.member);
    early = null;
    return render();
  }
}

function own(reservation) {
  if (!me) return;
  const others = me.reservations.filter((r) => r.id !== reservation.id);
  me = { ...me, reservations: [reservation, ...others] };
  try {
    localStorage.setItem(`flashsale:mine:${drop}`, `${reservation.id} ${reservation.state}`); // other tabs look again
  } catch {
    // They find out by themselves, later.
  }
}

/* What is done */

function onverdict(code, body, pressed) {
  const batch = batches.find((b) => b.id === pressed.body.allocation);
  flash = null;
  if (code === "held") {
    own(body);
    if (form) form.reset();
  } else if (code === "unauthenticated") {
    [me, signed] = [null, false];
  } else if (pressed.body.fcode && AT_THE_CODE[code]) {
    codeError(say(AT_THE_CODE[code]));
  } else if (code === "sold_out" && batch) {
    batch.state = "sold_out";
    batch.soldAt = clock.now();
    watch.ask();
    const other = target(batches, me, clock.now());
    if (other) return press.start(me.member, { ...pressed.body, allocation: other.id });
    if (pressed.body.quantity) fewer(batch);
  } else if (code === "not_open") {
    clock.set();
    watch.ask();
  } else if (code === "member_limit" || code === "stopped" || code === "not_eligible") {
    if (code !== "stopped") flashUp({ state: code, text: `${code}.text` });
    askMine();
  } else if (FLASH_FOR.has(code)) {
    watch.ask();
    if (batch && code === "closed") batch.state = "closed";
  } else {
    flashUp({ state: "failed", said: body?.detail });
  }
  render();
}

/** So many are not left; whether any are, the next status tells. */
function fewer(batch) {
  [batch.state, batch.soldAt, many.value] = ["open", 0, "1"];
  flashUp({ state: "fewer", text: "fewer.text" });
}

async function settleHeld(method) {
  const held = shown.reservation;
  if (settling || !held) return;
  settling = held;
  render();
  const path = `/v1/reservations/${held.id}${method === "POST" ? "/confirm" : ""}`;
  const [status, body] = await settle(method, path, performance.now() + Date.parse(held.expires_at) - clock.now());
  settling = null;
  if (status === 200) {
    own(body);
    if (method === "DELETE") flashUp({ state: "cancelled", text: "cancelled.text" });
    else flashUp({ state: "confirmed", reservation: body }); // and one may go on buying, where several are allowed
  } else if (status === 401) {
    [me, signed] = [null, false];
  } else {
    if (body?.code === "expired") flashUp({ state: "expired", text: "expired.text" });
    else flashUp({ state: "failed", said: body?.detail });
    await askMine();
  }
  watch.ask();
  render();
}

let fading = 0;

/** Say what has just happened, for a while: then the panel tells again how things are. */
function flashUp(what) {
  clearTimeout(fading);
  flash = what;
  fading = setTimeout(() => {
    flash = null;
    render();
  }, FLASH_MS);
}

const signIn = () => location.assign(signInPath());

const acts = {
  buy: () => {
    flash = null;
    const batch = target(batches, me, clock.now());
    const quantity = Number(many?.value ?? 1);
    if (batch && me) press.start(me.member, { allocation: batch.id, ...(quantity > 1 ? { quantity } : {}) });
  },
  signin: signIn,
  pay: () => location.assign(act.dataset.pay.replace("{reservation}", shown.reservation.id)),
  confirm: () => settleHeld("POST"),
  cancel: () => settleHeld("DELETE"),
  reservations: () => location.assign(`/${lang}/reservations`),
  stop: () => press.stop(),
};

buy.removeAttribute("disabled"); // it stays in the tab order, and says by aria-disabled when it does nothing
buy.addEventListener("click", () => acts[shown.button]?.());
more.addEventListener("click", () => acts[shown.more]?.());
many?.addEventListener("change", render);

function codeError(words) {
  $("code-error").textContent = words;
  if (words) $("code").setAttribute("aria-invalid", "true");
  else $("code").removeAttribute("aria-invalid");
}

function slip(found) {
  const key = `fcode.${found.slip === "too_long" ? "length" : found.slip}`;
  return say(key, { n: found.n ?? "64+", sign: found.sign });
}

if (form) {
  const field = $("code");
  groupField(field);
  const brought = new URLSearchParams(location.hash.slice(1)).get("code"); // from My F-codes; a server never sees it
  if (brought) {
    field.value = grouped(brought);
    history.replaceState(null, "", location.pathname);
    field.scrollIntoView({ block: "center" });
    field.focus({ preventScroll: true });
  }
  field.addEventListener("input", () => {
    const found = parse(field.value);
    codeError(["check", "symbol", "too_long"].includes(found.slip) ? slip(found) : "");
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const found = parse(field.value);
    codeError(found.code ? "" : slip(found));
    if (!found.code) return field.focus();
    if (!signed) return signIn();
    flash = null;
    if (me) press.start(me.member, { fcode: found.code });
    else early = found.code;
    return undefined;
  });
}

/* What is shown */

function tell(words) {
  if (words) live.textContent = words;
}

function set(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

const label = (name) => {
  if (name === "signin") return say("signin.button");
  if (name === "confirm") return say("held.button");
  if (name === "pay") return say("pay.button");
  if (name === "reservations") return say("confirmed.button");
  return many?.selectedOptions[0].dataset.buy ?? say("buy");
};

function heldWords(n) {
  const values = { n, time: time(shown.left) };
  if (n > 1) return payment ? say("held.paymany", values) : say("held.many", values);
  return payment ? say("held.pay", values) : say("held.text", values);
}

function sentence(now) {
  if (shown.state === "held") return heldWords(shown.reservation.quantity);
  if (shown.state === "confirmed") {
    const { order, quantity: n } = shown.reservation;
    return say(n > 1 ? "confirmed.many" : "confirmed.text", { n, order: order.slice(-6).toUpperCase() });
  }
  if (shown.said !== undefined) return shown.said ?? "";
  const values = { ...shown.values };
  if (shown.until) values.time = time(shown.until);
  if (shown.day) values.day = day(shown.day);
  return say(shown.text ?? "", values);
}

function announce(before) {
  if (before.state === shown.state || before.state === undefined) return;
  if (shown.state === "held") tell(say("held.said", { left: inWords(shown.left - clock.now()) }));
  else if (shown.state === "open" && (before.state === "upcoming" || before.state === "next")) tell(say("say.open"));
  else if (!["pressing", "confirming", "loading", "upcoming"].includes(shown.state)) {
    tell(shown.state === "busy" ? text.textContent : `${title.textContent}. ${text.textContent}`);
  }
}

/** Say how much is left, once at each of these: the last one that was passed. */
function remind(left, marks, key) {
  if (said.left !== shown.left) said = { left: shown.left, at: left };
  const passed = marks.filter((mark) => mark < said.at && left <= mark).pop();
  if (passed !== undefined) tell(say(key, { left: inWords(passed) }));
  said.at = Math.min(said.at, left);
}

function showCount(now) {
  const left = shown.left - (shown.clock === "page" ? performance.now() : now);
  if (shown.state === "busy") set(count, say("seconds", { n: Math.max(0, Math.ceil(left / 1000)) }));
  else set(count, down(left));
  count.classList.toggle("long", count.textContent.length > 8);
  if (shown.state === "held") remind(left, HOLD_SAID, "say.hold");
  else if (shown.clock !== "page") remind(left, OPENING_SAID, "say.opens");
  return left;
}

function showBatches(now) {
  for (const b of batches) {
    const state = stateOf(b, now);
    b.li.dataset.state = state;
    set(b.li.querySelector(".state"), say(state === "sold_out" && b.backBy ? "state.taken" : `state.${state}`));
  }
}

function ended(before) {
  if (before.state === "held" && shown.state !== "held" && shown.state !== "confirming" && before.left <= clock.now()) {
    flashUp({ state: "expired", text: "expired.text" });
    watch.ask();
    return true;
  }
  return false;
}

/** How many one may ask for: before the opening, and as long as there is something to buy. */
function showChoice(now) {
  const most = room(me, now, limit);
  for (const option of many.options) option.disabled = Number(option.value) > most;
  if (Number(many.value) > most) many.value = String(Math.max(1, most));
  act.toggleAttribute("data-many", shown.button === "buy" || shown.state === "upcoming" || shown.state === "next");
}

function look(now) {
  const phase = settling ? { phase: "settling" } : press;
  return panel({ now, batches, me, signedIn: signed, press: phase, flash, online: navigator.onLine, limit });
}

function render() {
  clearTimeout(tick);
  if (!clock.ready) return;
  const now = clock.now();
  const before = shown;
  shown = look(now);
  if (ended(before)) shown = look(now);
  if (shown.state === "held" && payment) shown.button = act.dataset.pay ? "pay" : undefined;
  if (many) showChoice(now);
  act.dataset.state = shown.state;
  act.toggleAttribute("data-count", shown.left !== undefined);
  set(title, say(`${shown.state}.title`));
  set(text, sentence(now));
  set(buy, label(shown.button));
  buy.setAttribute("aria-disabled", String(!shown.button || (shown.button === "buy" && !me)));
  more.hidden = !shown.more;
  terms.hidden = !more.hidden;
  const moreKey = shown.more === "stop" ? "busy.more" : "held.more";
  if (shown.more && has(moreKey)) set(more, say(moreKey));
  if (form) form.hidden = shown.state === "held" || shown.button === "reservations"; // no code is of use now
  showBatches(now);
  announce(before);
  const left = shown.left === undefined ? Infinity : showCount(now);
  next(now, left);
}

/** Look again when something changes by itself: a figure of the countdown, an opening, a closing. */
function next(now, left) {
  const moments = batches.flatMap((b) => [b.opens, b.closes]).filter((at) => at > now);
  const second = left === Infinity ? Infinity : left > 0 ? ((left - 1) % 1000) + 1 : 250;
  const soon = Math.min(second, 30000, ...moments.map((at) => at - now));
  tick = setTimeout(render, Math.max(1, Math.ceil(soon)));
  const opening = nextOpening(batches, me, now);
  const check = opening ? opening.opens - CHECK_BEFORE - checkEarlier : Infinity;
  if (signed && me && now > check && askedAt < check) {
    askedAt = now;
    askMine(); // whoever is signed out by now still has time to sign in
  }
}

clock.onset = render;
window.addEventListener("online", render);
window.addEventListener("offline", render);
window.addEventListener("pageshow", (event) => event.persisted && askMine());
document.addEventListener("visibilitychange", () => payment && shown.state === "held" && !document.hidden && askMine());
window.addEventListener("storage", (event) => event.key === `flashsale:mine:${drop}` && askMine());
clock.set();
watch.ask();
askMine();
