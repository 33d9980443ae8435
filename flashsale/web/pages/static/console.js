// What all pages of the console share: who may work here, calls, parts of a page, asking back.

import { passing, signedIn, waitFor } from "./net.js";
import { say, showMember, signInPath } from "./page.js";

export const $ = (id) => document.getElementById(id);
export const lang = document.documentElement.lang.slice(0, 2);
const root = document.documentElement;
const CALL_MAX_MS = 20000;
const TOLD_MS = 12000;
let telling = 0;

/** An element with attributes (functions are listeners, null leaves one out) and children (texts or elements). */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A copy of a <template>'s first element. */
export const copy = (id) => $(id).content.firstElementChild.cloneNode(true);

/**
 * A call of the API: {status, body, etag, detail, code, retryAfter}, status 0 when nothing came back. Never throws.
 * `data` goes as JSON; `file` as it is, with its `type`; `etag` is what was read, so that nobody else's change is lost.
 */
export async function ops(method, path, { data, file, type, etag, key, timeout = CALL_MAX_MS } = {}) {
  const headers = { Accept: "application/json", "Accept-Language": lang };
  if (data !== undefined) headers["Content-Type"] = "application/json";
  if (file !== undefined) headers["Content-Type"] = type;
  if (etag) headers["If-Match"] = etag;
  if (key) headers["Idempotency-Key"] = key;
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), timeout);
  try {
    const sent = data === undefined ? file : JSON.stringify(data);
    const answer = await fetch(path, { method, headers, body: sent, signal: ending.signal, cache: "no-store" });
    return told(answer.status, await answer.text(), (name) => answer.headers.get(name));
  } catch {
    return told(0, "", () => null);
  } finally {
    clearTimeout(timer);
  }
}

/** What an answer says. */
export function told(status, text, header) {
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    if (status < 400) status = 0;
  }
  const after = Number(header("Retry-After"));
  return {
    status,
    body,
    ok: status >= 200 && status < 300,
    etag: header("ETag"),
    code: body?.code ?? "",
    detail: status === 0 ? say("c.nothing") : (body?.detail ?? say("c.nothing")),
    retryAfter: after > 0 ? after : null,
  };
}

/** Ask until there is an answer. What fails meanwhile is said. */
export async function ask(path) {
  for (let tries = 1; ; tries += 1) {
    const answer = await ops("GET", path);
    if (!passing(answer.status)) {
      if (tries > 1) tell("");
      return answer;
    }
    tell(say("c.again"), "bad");
    await new Promise((done) => setTimeout(done, waitFor(answer.retryAfter, tries) * 1000));
  }
}

/** Say what came of it, in the one line for that. What went well goes away by itself. An API's own sentence is English. */
export function tell(text, kind = "good", api = false) {
  const line = $("told");
  line.dataset.kind = kind;
  line.textContent = text;
  if (api) line.lang = "en";
  else line.removeAttribute("lang");
  line.hidden = !text;
  clearTimeout(telling);
  if (text && kind === "good") telling = setTimeout(() => tell(""), TOLD_MS);
}

/** Tell of an answer: what was done, or why not. Somebody else's change asks for a reload. True when it was done. */
export function tellOf(answer, done) {
  if (answer.ok) {
    if (done !== undefined) tell(done);
    return true;
  }
  if (answer.status === 412) {
    tell(`${say("c.changed")} `, "bad");
    $("told").append(el("button", { type: "button", id: "reload", click: () => location.reload() }, say("c.reload")));
    $("reload").focus();
  } else if (answer.status === 401) location.assign(signInPath());
  else tell(answer.detail, "bad", answer.status !== 0);
  return false;
}

/** Begin: find out who is here, and let in who may read. */
export async function enter(begin) {
  for (const link of document.querySelectorAll("[data-signin]")) link.href = signInPath();
  const session = signedIn() ? (await ask("/v1/me/session")).body : null;
  if (session?.signed_in) showMember(session.member);
  const role = session?.role;
  if (role !== "ops" && role !== "ops-read") {
    $("barred").hidden = false;
    $("waiting").hidden = true;
    $(session?.signed_in ? "barred-other" : "barred-nobody").hidden = false;
    return;
  }
  root.dataset.role = role;
  $("reader").hidden = role === "ops";
  await begin(role);
  $("waiting").hidden = true;
  $("page").hidden = false;
  root.dataset.ready = "1";
  document.dispatchEvent(new Event("console:shown"));
}

export const mayChange = () => root.dataset.role === "ops";

/**
 * Ask back beside a button: {reason} when it is meant, null when not. `reason`: "may" or "must" be given, or is not asked.
 */
export function askBack(button, { title, text = "", yes, reason = null, danger = false }) {
  for (const open of document.querySelectorAll(".ask")) open.cancel();
  return new Promise((settle) => {
    const panel = copy("ask");
    const [head, words, field, go, no] = ["h3", ".words", "input", ".yes", ".no"].map((s) => panel.querySelector(s));
    head.textContent = title;
    words.textContent = text;
    words.hidden = !text;
    panel.querySelector(".why").hidden = !reason;
    field.required = reason === "must";
    go.textContent = yes;
    go.classList.toggle("danger", danger);
    const end = (outcome) => {
      panel.remove();
      if (button.isConnected) button.focus();
      settle(outcome);
    };
    panel.cancel = () => end(null);
    panel.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.required && !field.value.trim()) {
        field.setAttribute("aria-invalid", "true");
        panel.querySelector(".error").textContent = say("c.empty");
        field.focus();
        return;
      }
      end({ reason: field.value.trim() || undefined });
    });
    panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end(null);
    });
    no.addEventListener("click", () => end(null));
    (button.closest(".acts") ?? button).after(panel);
    (reason === "must" ? field : no).focus();
  });
}

/** Do something once at a time for a button; it says so meanwhile. */
export async function busy(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return undefined;
  button.setAttribute("aria-disabled", "true");
  try {
    return await work();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

const whole = new Intl.NumberFormat(document.documentElement.lang);
/** A number as one reads it. */
export const n = (value) => (value === null || value === undefined ? "–" : whole.format(value));

/** The rows of a table's body, made anew. Each cell is a text or an element. */
export function fill(body, rows) {
  body.replaceChildren(...rows.map((cells) => el("tr", {}, ...cells.map((cell, at) => {
    const of = cell?.dataset?.cell ? cell : el(at === 0 ? "th" : "td", at === 0 ? { scope: "row" } : {}, cell ?? "");
    return of;
  }))));
}

/** A cell with a number, to the right. */
export const figure = (value) => el("td", { class: "num", "data-cell": "1" }, n(value));
