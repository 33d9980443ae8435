// Allocations as a timeline: one row each, a bar for its window, a line for now. The table beside it says the same.

import { el, n } from "./console.js";
import { clock, day, has, say, span } from "./page.js";

const STEPS_MIN = [1, 5, 15, 30, 60, 180, 360, 720, 1440, 2880, 10080, 43200];
const TICKS_MAX = 5;

/** Who may take from an allocation. */
export const whoOf = ({ kind, at_least: least, snapshot }) => {
  const text = say(`who.${kind}`, { n: n(least) });
  return snapshot ? `${text} (${snapshot})` : text;
};

function ticks(from, to) {
  const step = (STEPS_MIN.find((minutes) => (to - from) / (minutes * 60000) <= TICKS_MAX) ?? 86400) * 60000;
  const places = [];
  for (let at = Math.ceil(from / step) * step; at < to; at += step) places.push([at, step >= 86400000 ? day(at) : clock(at)]);
  return places;
}

/** Draw allocations {id, opens_at, closes_at, access, quantity, state?} into `host`. */
export function draw(host, allocations, now) {
  const times = allocations.flatMap((a) => [Date.parse(a.opens_at), Date.parse(a.closes_at)]).filter((at) => !Number.isNaN(at));
  if (!times.length) {
    host.replaceChildren();
    return;
  }
  const margin = Math.max(60000, (Math.max(...times) - Math.min(...times)) * 0.04);
  const [from, to] = [Math.min(...times) - margin, Math.max(...times) + margin];
  const share = (at) => `${((at - from) / (to - from)) * 100}%`;
  const rows = allocations.map((a) => {
    const [opens, closes] = [Date.parse(a.opens_at), Date.parse(a.closes_at)];
    const bar = el("span", { class: "window", "data-kind": a.access.kind, "data-state": a.state ?? "" });
    if (closes > opens) {
      bar.style.left = share(opens);
      bar.style.width = `${((closes - opens) / (to - from)) * 100}%`;
    }
    const label = el("span", { class: "name" }, el("strong", {}, a.id || "–"), ` ${n(a.quantity)}`);
    const told = `${a.id}: ${closes > opens ? span(opens, closes) : "–"}, ${has(`who.${a.access.kind}`) ? whoOf(a.access) : ""}`;
    return el("li", {}, label, el("span", { class: "track", role: "img", "aria-label": told }, bar));
  });
  const scale = el("div", { class: "scale", "aria-hidden": "true" });
  for (const [at, text] of ticks(from, to)) {
    const tick = el("span", {}, text);
    tick.style.left = share(at);
    scale.append(tick);
  }
  const list = el("ol", { class: "spans" }, ...rows);
  if (now >= from && now <= to) {
    for (const row of rows) {
      const line = el("i", { class: "now", "aria-hidden": "true" });
      line.style.left = share(now);
      row.querySelector(".track").append(line);
    }
  }
  host.replaceChildren(list, scale);
}
