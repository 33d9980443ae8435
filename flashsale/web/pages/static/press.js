// One press of the button, one key: stored before it is sent, kept until there is a verdict, so that neither a reload nor
// a lost reply nor a second tab makes two reservations of it, or none.

import { call, passing, waitFor } from "./net.js";

const AGE_MAX_MS = 600000;

const newKey = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
};

/** Wait so long, or until `signal` says that there is no need; or, where `wake` is true, until the network is back. */
const pause = (ms, signal, wake) =>
  new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      window.removeEventListener("online", end);
      done();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    if (wake) window.addEventListener("online", end);
  });

/** The button's press of one drop. `onchange` is called when `phase` changes, `onverdict(code, body)` at the end. */
export class Press {
  constructor(drop, onchange, onverdict) {
    this.name = `flashsale:press:${drop}`;
    this.path = `/v1/me/drops/${drop}/reservations`;
    this.onchange = onchange;
    this.onverdict = onverdict;
    this.phase = "idle";
    this.until = 0;
    this.stopping = null;
  }

  /** The press that has no verdict yet, of this member; null when there is none. */
  stored(member) {
    try {
      const found = JSON.parse(localStorage.getItem(this.name));
      return found && found.member === member && Date.now() - found.at < AGE_MAX_MS ? found : null;
    } catch {
      return null;
    }
  }

  keep(press) {
    try {
      if (press) localStorage.setItem(this.name, JSON.stringify(press));
      else localStorage.removeItem(this.name);
    } catch {
      // A browser that stores nothing presses all the same; only a reload would forget the key.
    }
  }

  /** Press. While a press is under way, this is the same press. */
  start(member, body) {
    if (this.stopping) return;
    const known = this.stored(member);
    const same = known && JSON.stringify(known.body) === JSON.stringify(body);
    const press = same ? known : { member, body, key: newKey(), at: Date.now() };
    this.keep(press);
    this.run(press);
  }

  /** Go on with a press that has no verdict yet: the page was reloaded, or its reply was lost. */
  resume(member) {
    const press = this.stored(member);
    if (press && !this.stopping) this.run(press);
  }

  /** Try no more. What was sent may still have been heard: the next look at what is mine tells. */
  stop() {
    this.keep(null);
    this.stopping?.abort();
  }

  show(phase, until = 0) {
    this.phase = phase;
    this.until = until;
    this.onchange();
  }

  async run(press) {
    const stopping = new AbortController();
    this.stopping = stopping;
    let verdict = null;
    for (let tries = 1; verdict === null && !stopping.signal.aborted; tries += 1) {
      this.show("sending");
      const { status, body, retryAfter } = await call("POST", this.path, { body: press.body, key: press.key });
      if (stopping.signal.aborted) break;
      if (!passing(status)) verdict = [status < 300 ? "held" : (body?.code ?? "failed"), body];
      else await this.wait(body?.code, waitFor(retryAfter, tries) * 1000, stopping.signal);
    }
    this.stopping = null;
    this.show("idle");
    if (verdict && verdict[0] !== "unauthenticated") this.keep(null);
    this.onverdict(...(verdict ?? ["stopped", null]), press);
  }

  async wait(code, ms, signal) {
    const offline = !navigator.onLine;
    this.show(offline ? "offline" : code === "paused" ? "paused" : "busy", performance.now() + ms);
    await pause(ms, signal, true);
    while (!navigator.onLine && !signal.aborted) {
      this.show("offline");
      await pause(5000, signal, true);
    }
  }
}

/**
 * Confirm or give back what is held: repeated until there is an answer, which is [status, body]. Both may be repeated
 * safely; after `until` on the page's clock nobody needs the answer any longer.
 */
export async function settle(method, path, until) {
  const signal = new AbortController().signal;
  for (let tries = 1; ; tries += 1) {
    const { status, body, retryAfter } = await call(method, path, { body: method === "POST" ? {} : undefined });
    if (!passing(status) || performance.now() > until) return [status, body];
    await pause(waitFor(retryAfter, tries) * 1000, signal, true);
  }
}
