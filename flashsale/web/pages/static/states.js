// What the panel with the button says and does, made out of what is known. Pure: no clock, no page.

/** The state of a batch at a moment of the gate's clock, by what was heard of it last. */
export function stateOf(batch, now) {
  if (batch.state === "closed" || now >= batch.closes) return "closed";
  if (batch.state === "paused") return "paused";
  if (now < batch.opens) return "upcoming";
  return batch.state === "sold_out" ? "sold_out" : "open";
}

const mine = (batch, me) => me?.allocations.find((a) => a.id === batch.id);
const may = (batch, me) => mine(batch, me)?.eligible !== false;

/** The batches that a member may buy from: all, as long as it is not known who asks. */
export const buyable = (batches, me) => batches.filter((b) => b.kind !== "fcode" && may(b, me));

/** The batch that a press asks for now, or undefined. */
export const target = (batches, me, now) => buyable(batches, me).find((b) => stateOf(b, now) === "open");

/** The next opening, or undefined. */
export const nextOpening = (batches, me, now) =>
  buyable(batches, me).filter((b) => stateOf(b, now) === "upcoming").sort((a, b) => a.opens - b.opens)[0];

/** What a member has in this drop that counts: a hold before all, then what is ordered. */
export function kept(me, now) {
  const own = me?.reservations ?? [];
  const held = own.find((r) => r.state === "held" && Date.parse(r.expires_at) > now);
  return { held, confirmed: own.filter((r) => r.state === "confirmed") };
}

/** How many more a member may order. */
export const room = (me, now, limit) => limit - kept(me, now).confirmed.reduce((n, r) => n + r.quantity, 0);

function whyNot(batches, me) {
  const all = batches.filter((b) => b.kind !== "fcode");
  const no = all.map((b) => mine(b, me)).find((a) => a && !a.eligible && a.need !== undefined);
  if (!no) return { text: "not_eligible.title" };
  if (no.cutoff === undefined) return { text: "not_eligible.tier", values: { have: no.have, need: no.need } };
  const values = { have: no.have, need: no.need };
  return { text: no.have === undefined ? "not_eligible.list" : "not_eligible.points", values, day: Date.parse(no.cutoff) };
}

/** What a press that is under way shows. */
function pressing(press, paused) {
  if (press.phase === "sending") return { state: "pressing", text: "pressing.text" };
  if (press.phase === "offline") return { state: "offline", text: "offline.kept", more: "stop" };
  if (press.phase === "paused" || paused) return { state: "paused", text: "paused.kept", more: "stop" };
  return { state: "busy", text: "busy.text", left: press.until, clock: "page", more: "stop" };
}

function sold(open, me, now, limit) {
  const { held, confirmed } = kept(me, now);
  if (held) return { state: "held", left: Date.parse(held.expires_at), button: "confirm", more: "cancel", reservation: held };
  if (confirmed.length && room(me, now, limit) <= 0) {
    return { state: "confirmed", button: "reservations", reservation: confirmed[0] };
  }
  return null;
}

/**
 * The panel: {state, text, values, left, clock, button, enabled, more}. `left` is what the countdown runs to, on the
 * gate's clock unless `clock` is "page".
 */
export function panel({ now, batches, me, signedIn, press, flash, online, limit }) {
  const groups = { open: [], upcoming: [], paused: [], sold_out: [], closed: [] };
  for (const b of buyable(batches, me)) groups[stateOf(b, now)].push(b);
  const open = groups.open[0];
  const have = sold(open, me, now, limit);
  if (press.phase === "settling") return { state: "confirming", reservation: have?.reservation };
  if (have) return have;
  if (press.phase !== "idle") return pressing(press, groups.paused.length > 0 && !open);
  if (!online) return { state: "offline", text: "offline.text" };
  const buy = open ? { button: signedIn ? "buy" : "signin" } : {};
  if (flash) return { ...flash, ...buy };
  const plain = batches.filter((b) => b.kind !== "fcode");
  const lane = batches.some((b) => b.kind === "fcode" && stateOf(b, now) !== "closed");
  if (!plain.length && lane) return { state: "fcode_only", text: "fcode_only.text" };
  if (plain.length && !buyable(batches, me).length) {
    return plain.every((b) => stateOf(b, now) === "closed") && !lane
      ? { state: "closed", text: "closed.text" }
      : { state: "not_eligible", ...whyNot(batches, me) };
  }
  if (open) return openNow(open, signedIn);
  if (groups.paused.length) return { state: "paused", text: "paused.text" };
  if (groups.upcoming.length) return toCome(groups, me, signedIn, batches);
  if (groups.sold_out.length) return allTaken(groups.sold_out);
  return lane ? { state: "fcode_only", text: "fcode_only.text" } : { state: "closed", text: "closed.text" };
}

function openNow(open, signedIn) {
  if (!signedIn) return { state: "open", text: "signin.open", button: "signin" };
  return { state: "open", text: open.back ? "back.text" : "open.text", button: "buy" };
}

function toCome(groups, me, signedIn, batches) {
  const next = [...groups.upcoming].sort((a, b) => a.opens - b.opens)[0];
  const taken = groups.sold_out.find((b) => b.backBy);
  const state = groups.sold_out.length ? "next" : "upcoming";
  const shown = { state, left: next.opens, text: taken ? "taken.text" : `${state}.text`, until: taken?.backBy };
  if (!signedIn) return { ...shown, text: "signin.text", button: "signin" };
  const ends = me?.session_ends_at ? Date.parse(me.session_ends_at) : Infinity;
  return ends < Math.min(next.closes, next.opens + 3600000) ? { ...shown, text: "signin.ends", button: "signin" } : shown;
}

function allTaken(taken) {
  const until = Math.max(...taken.map((b) => b.backBy ?? 0));
  return until ? { state: "taken", text: "taken.text", until } : { state: "sold_out", text: "sold_out.text" };
}
