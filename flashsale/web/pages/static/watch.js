// How a drop is just now: asked at intervals that the answer gives, spread by chance; or told by the server, where it has
// room for one more and no other tab of this browser is told already. A page that nobody looks at asks nothing.

import { call, waitFor } from "./net.js";

const TOLD_TIMES = 6; // a page that is told of changes still asks, this many times more seldom
const AGAIN_MS = 60000;

export class Watch {
  constructor(drop, onstatus, onallocation) {
    this.path = `/v1/drops/${drop}`;
    this.onstatus = onstatus;
    this.onallocation = onallocation;
    this.timer = 0;
    this.asking = null;
    this.failures = 0;
    this.source = null;
    this.release = null;
    this.notBefore = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.ask()));
    window.addEventListener("online", () => this.ask());
    window.addEventListener("pageshow", (shown) => shown.persisted && this.ask());
    window.addEventListener("pagehide", () => this.rest());
  }

  /** Ask now, and from then on. */
  ask() {
    clearTimeout(this.timer);
    this.asking ??= this.once().finally(() => {
      this.asking = null;
    });
    return this.asking;
  }

  async once() {
    const { status, body, retryAfter } = await call("GET", `${this.path}/status`);
    let wait;
    if (status === 200) {
      this.failures = 0;
      this.onstatus(body);
      if (body.streams) this.listen();
      wait = (body.poll_s + Math.random() * body.spread_s) * (this.source ? TOLD_TIMES : 1);
    } else {
      this.failures += 1;
      wait = waitFor(retryAfter, this.failures);
    }
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.ask(), wait * 1000);
  }

  rest() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.release?.();
  }

  /** Be told of changes. One tab of a browser is enough: over HTTP/1.1 six streams would block everything else. */
  listen() {
    if (this.source || this.release || !navigator.locks || document.hidden || performance.now() < this.notBefore) return;
    this.release = () => {};
    navigator.locks.request("flashsale:events", { ifAvailable: true }, (lock) => {
      if (!lock || document.hidden) {
        this.release = null;
        return null;
      }
      return new Promise((done) => {
        this.release = () => {
          this.release = null;
          done();
        };
        this.open();
      });
    });
  }

  open() {
    const source = new EventSource(`${this.path}/events`);
    this.source = source;
    source.addEventListener("allocation", (event) => this.onallocation(JSON.parse(event.data)));
    source.addEventListener("drop", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), 1000 + Math.random() * 1000); // the status is kept for a second on its way
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        this.notBefore = performance.now() + AGAIN_MS * (1 + Math.random());
        this.rest();
        this.timer = setTimeout(() => this.ask(), (1 + Math.random()) * 1000);
      }
    });
  }
}
