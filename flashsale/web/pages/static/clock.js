// The gate's clock, by which windows open and close. The phone's own clock may be wrong, so it is never asked.

import { call } from "./net.js";

const SAMPLES = 3;
const STALE_MS = 300000;
const ASLEEP_MS = 2500;
const LOOK_MS = 1000;

/**
 * A clock set by samples of the gate's time: of several, the one with the smallest round trip, whose error is at most
 * half of that. It goes on by performance.now(), and is set again when the page wakes up, and every few minutes.
 */
export class Clock {
  constructor(path) {
    this.path = path;
    this.offset = null;
    this.error = Infinity;
    this.setAt = 0;
    this.onset = () => {};
    this.setting = null;
    let before = performance.now();
    let wall = Date.now();
    setInterval(() => {
      const now = performance.now();
      const gone = now - before;
      const wallGone = Date.now() - wall;
      // A page that slept misses beats; on some systems performance.now() stands still meanwhile, and Date.now() does not.
      const slept = gone > LOOK_MS + ASLEEP_MS || Math.abs(wallGone - gone) > ASLEEP_MS;
      before = now;
      wall = Date.now();
      if (slept || now - this.setAt > STALE_MS) this.set();
    }, LOOK_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.set());
    window.addEventListener("pageshow", (shown) => shown.persisted && this.set());
    window.addEventListener("online", () => this.set());
  }

  get ready() {
    return this.offset !== null;
  }

  /** The gate's time, Unix milliseconds. */
  now() {
    return performance.now() + this.offset;
  }

  /** Take samples, and set the clock by the best of them. True when it is set. */
  set() {
    this.setting ??= this.sample().finally(() => {
      this.setting = null;
    });
    return this.setting;
  }

  async sample() {
    let best = null;
    for (let n = 0; n < SAMPLES; n += 1) {
      const sent = performance.now();
      const { status, body } = await call("GET", this.path, { timeout: 5000 });
      const got = performance.now();
      if (status === 200 && (best === null || got - sent < best.trip)) {
        best = { trip: got - sent, offset: body.now_ms + (got - sent) / 2 - got };
      }
    }
    if (best === null) return this.ready;
    this.offset = best.offset;
    this.error = best.trip / 2;
    this.setAt = performance.now();
    this.onset();
    return true;
  }
}
