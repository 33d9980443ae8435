// The page itself: its words and figures in its language, and who is signed in. The words come with the page, in
// <template id="words">.

import { call, signedIn } from "./net.js";

const root = document.documentElement;
export const lang = root.lang.slice(0, 2);
const zone = root.dataset.zone;
const found = new Map();
for (const each of document.getElementById("words")?.content.querySelectorAll("[data-w]") ?? []) {
  found.set(each.dataset.w, each.textContent);
}

export const has = (key) => found.has(key);

/** The words of a key, with {name} filled in. */
export function say(key, values = {}) {
  const text = found.get(key) ?? "";
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

const at = (options) => new Intl.DateTimeFormat(root.lang, { timeZone: zone, ...options });
const clockForm = at({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayForm = at({ month: "short", day: "numeric" });
const dayOf = at({ year: "numeric", month: "2-digit", day: "2-digit" });
const weekForm = at({ month: "short", day: "numeric", weekday: "short" });

export const clock = (ms) => clockForm.format(ms);
export const day = (ms) => dayForm.format(ms);
export const when = (ms) => `${weekForm.format(ms)} ${clock(ms)}`;

/** A window, with its days where they differ. */
export function span(from, to) {
  const sameDay = dayOf.format(from) === dayOf.format(to);
  return `${when(from)} – ${sameDay ? clock(to) : when(to)}`;
}

const two = (n) => String(n).padStart(2, "0");

/** A time that runs down, in figures: 9:05, 1:09:05, 2 days 03:00:00. Rounded up, so that 0:00 is the moment itself. */
export function down(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  const rest = `${two(m)}:${two(s % 60)}`;
  if (d) return say("days", { n: d, rest: `${two(h)}:${rest}` });
  return h ? `${h}:${rest}` : rest;
}

/** The same in words, for who listens. */
export function inWords(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  if (s < 60) return say("left.seconds", { n: s });
  const m = Math.round(s / 60);
  return m === 1 ? say("left.minute") : say("left.minutes", { n: m });
}

const who = document.getElementById("who");
const path = location.pathname;

/** Where one signs in, and comes back from to this page. */
export const signInPath = () => `${who.pathname}?next=${encodeURIComponent(path + location.search)}`;

/** Show who is signed in; null: nobody. */
export function showMember(member) {
  who.dataset.nobody ??= who.textContent;
  who.textContent = member ? who.dataset.member.replace("{member}", member) : who.dataset.nobody;
}

for (const link of document.querySelectorAll(".top nav a")) {
  if (link.pathname === path) link.setAttribute("aria-current", "page");
}
if (!path.endsWith("/sign-in")) who.href = signInPath();

/** Ask who is signed in, and show it. */
export async function whoIsIt() {
  if (!signedIn()) return null;
  const { status, body } = await call("GET", "/v1/me/session");
  if (status !== 200 || !body.signed_in) return null;
  showMember(body.member);
  return body;
}
