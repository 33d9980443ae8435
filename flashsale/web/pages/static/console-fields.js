// Fields: times in the page's zone, money in its currency, and the API's own messages at the field that they are about.

import { $, el } from "./console.js";
import { say } from "./page.js";

const zone = document.documentElement.dataset.zone;
const parts = new Intl.DateTimeFormat("en-GB", {
  timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

/** Unix ms as the zone's wall clock, as if that were UTC. */
function wall(ms) {
  const of = {};
  for (const { type, value } of parts.formatToParts(ms)) of[type] = value;
  return Date.UTC(of.year, of.month - 1, of.day, of.hour, of.minute, of.second);
}

/** A moment for a field of type datetime-local: the zone's wall clock. */
export const toField = (moment) => new Date(wall(Date.parse(moment))).toISOString().slice(0, 19);

/** What such a field says, as RFC 3339; null when it says nothing. */
export function fromField(text) {
  const meant = Date.parse(`${text}Z`);
  if (Number.isNaN(meant)) return null;
  let at = meant - (wall(meant) - meant);
  at = meant - (wall(at) - at);
  return new Date(at).toISOString();
}

const digitsOf = (currency) => {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
  } catch {
    return 2;
  }
};

/** Minor units as one types them: 169900 → "1699". */
export const toAmount = ({ amount, currency }) => (amount / 10 ** digitsOf(currency)).toFixed(amount % 10 ** digitsOf(currency) ? digitsOf(currency) : 0);

/** What was typed, in minor units; NaN when it is no amount. */
export function fromAmount(text, currency) {
  const found = /^(\d{1,12})(?:[.,](\d+))?$/.exec(text.trim().replace(/[\s,](?=\d{3}\b)/g, ""));
  const digits = digitsOf(currency);
  if (!found || (found[2] ?? "").length > digits) return NaN;
  return Number(found[1]) * 10 ** digits + Number((found[2] ?? "").padEnd(digits, "0") || 0);
}

let made = 0;

/** Forget what was wrong. */
export function clear(form) {
  for (const line of form.querySelectorAll(".error")) line.textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/** Say at a field what is wrong with it. */
export function blame(field, text, api = false) {
  field.id ||= `field-${(made += 1)}`;
  let line = $(`${field.id}-error`);
  if (!line) {
    line = el("p", { class: "error", id: `${field.id}-error` });
    field.after(line);
  }
  line.textContent = text;
  if (api) line.lang = "en";
  else line.removeAttribute("lang");
  field.setAttribute("aria-invalid", "true");
  const named = new Set((field.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean));
  field.setAttribute("aria-describedby", [...named.add(line.id)].join(" "));
  return field;
}

/** Whether all that must be filled in is, and fits; what is not says so, and the first gets the focus. */
export function complete(form) {
  clear(form);
  const wrong = [...form.elements].filter((field) => field.willValidate && !field.closest("[hidden]") && !field.validity.valid);
  for (const field of wrong) {
    blame(field, field.validity.valueMissing ? say("c.empty") : field.validity.badInput || !field.title ? say("c.unfit") : field.title);
  }
  wrong[0]?.focus();
  return wrong.length === 0;
}

/** The field that a message of the API is about: by the place that it names, else by a name in it. */
function fieldOf(form, detail, code) {
  const fields = [...form.elements].filter((field) => field.dataset.api);
  const place = /at `\$\.?([^`]*)`/.exec(detail)?.[1];
  if (place) {
    const exact = fields.find((field) => field.dataset.api === place);
    return exact ?? fields.find((field) => field.dataset.api.startsWith(place)) ?? null;
  }
  const group = /llocation '([^']+)'/.exec(detail)?.[1] ?? /window of '([^']+)'/.exec(detail)?.[1];
  const named = [...detail.matchAll(/`([a-z_]+)`/g)].map((found) => found[1]);
  if (group && !named.length && code === "invalid_request") named.push("opens_at");
  const ofGroup = fields.filter((field) => !group || !field.closest("fieldset")?.querySelector("[data-name]") || field.closest("fieldset").querySelector("[data-name]").value === group);
  for (const name of named) {
    const found = (ofGroup.length ? ofGroup : fields).find((field) => field.dataset.api.split(".").pop() === name);
    if (found) return found;
  }
  if (/\bpicture\b/.test(detail)) return fields.find((field) => field.dataset.api === "picture") ?? null;
  if (/snapshot/.test(detail)) return fields.find((field) => field.dataset.api.endsWith("snapshot")) ?? null;
  if (code === "conflict" && /\bid\b/.test(detail)) return fields.find((field) => /(^|\.)id$/.test(field.dataset.api)) ?? null;
  return null;
}

/** Put the API's message at its field, which gets the focus. False when it is about none. */
export function explain(form, { status, detail, code }) {
  if (status !== 422 && status !== 409) return false;
  const field = fieldOf(form, detail, code);
  if (!field) return false;
  const message = detail.replace(/^The body does not fit: /, "").replace(/ - at `\$[^`]*`\.?$/, ".");
  for (let box = field.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  blame(field, message, true).focus();
  return true;
}
