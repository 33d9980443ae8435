// A drop as it sells: frames of the server, shown with their age. Used by the live page, and by rehearsals.

import { $, copy, el, figure, fill, n, ops } from "./console.js";
import { Chart, sample } from "./console-chart.js";
import { stateOf, wordOf } from "./console-verdicts.js";
import { say, signInPath } from "./page.js";

const KEEP_S = 180;
const AMBER_S = 2;
const GREY_S = 5;
const AGES_MS = 500;
const AGAIN_MS = 3000;

const seconds = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const ms = (value) => (value === null || value === undefined ? "–" : `${seconds.format(value)} ms`);

/** Points of a chart over time, the oldest dropped. */
class Trail {
  constructor(names) {
    this.names = names;
    this.rows = [];
  }

  add(at, values) {
    this.rows.push([at, values]);
    while (this.rows.length && at - this.rows[0][0] > KEEP_S) this.rows.shift();
  }

  data() {
    return [this.rows.map(([at]) => at), ...this.names.map((name) => this.rows.map(([, values]) => values[name] ?? null))];
  }
}

export class Live {
  /** `host` is where the parts go; `onframe` hears of every frame that is shown. */
  constructor(host, onframe = () => {}) {
    this.host = host;
    this.onframe = onframe;
    host.replaceChildren(copy("live-parts"));
    this.find = (name) => host.querySelector(`[data-part="${name}"]`);
    this.frame = null;
    this.waiting = null;
    this.paused = false;
    this.received = 0;
    this.source = null;
    this.words = [];
    this.rates = new Trail(this.words);
    this.times = new Trail(["p50", "p99"]);
    this.ratesChart = new Chart(this.find("rates"), { series: [], span: KEEP_S });
    this.timesChart = new Chart(this.find("times"), { series: [{ label: "p50" }, { label: "p99" }], unit: " ms", span: KEEP_S });
    this.find("times-legend").append(...["p50", "p99"].map((name, at) => el("li", {}, sample(at), say(`live.${name}`))));
    const pause = this.find("pause");
    pause.addEventListener("click", () => this.hold(pause));
    for (const table of host.querySelectorAll("details")) table.addEventListener("toggle", () => this.tables());
    setInterval(() => this.ages(), AGES_MS);
    document.addEventListener("console:shown", () => [this.ratesChart, this.timesChart].forEach((chart) => chart.resize()));
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", (shown) => shown.persisted && this.drop && this.open(this.drop));
  }

  /** Begin to listen to a drop. */
  open(drop) {
    this.close();
    this.drop = drop;
    this.connection("connecting");
    const source = new EventSource(`/v1/ops/drops/${drop}/live`);
    this.source = source;
    source.addEventListener("open", () => this.connection("live"));
    source.addEventListener("frame", (event) => this.take(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      if (this.source !== source) return;
      this.connection("connecting");
      if (source.readyState !== EventSource.CLOSED) return;
      this.mayStill();
      this.again = setTimeout(() => this.open(drop), AGAIN_MS * (1 + Math.random()));
    });
  }

  /** A stream that was refused may mean that the session has ended. */
  async mayStill() {
    const { ok, body } = await ops("GET", "/v1/me/session");
    if (ok && !body.signed_in) location.assign(signInPath());
  }

  close() {
    clearTimeout(this.again);
    this.source?.close();
    this.source = null;
    this.connection("ended");
  }

  connection(state) {
    const line = this.find("stream");
    line.dataset.state = state;
    line.textContent = say(`live.${state}`);
  }

  /** Stop and go on showing; what comes meanwhile is kept for the charts. */
  hold(button) {
    this.paused = !this.paused;
    button.textContent = say(this.paused ? "live.go" : "live.pause");
    button.setAttribute("aria-pressed", String(this.paused));
    if (!this.paused && this.waiting) this.show(...this.waiting);
  }

  take(frame) {
    const at = Date.parse(frame.at) / 1000;
    if (frame.verdicts) this.rates.add(at, frame.verdicts.per_s);
    if (frame.verdict_ms) this.times.add(at, frame.verdict_ms);
    this.waiting = [frame, performance.now()];
    if (!this.paused) this.show(frame, performance.now());
  }

  show(frame, received) {
    this.frame = frame;
    this.received = received;
    this.waiting = null;
    this.balance(frame.balance);
    this.allocations(frame);
    this.verdicts(frame.verdicts);
    if (frame.verdict_ms) this.timesChart.set(this.times.data());
    this.figures(frame);
    this.tables();
    this.ages();
    this.onframe(frame);
  }

  balance(balance) {
    const line = this.find("balance");
    const state = balance === null ? "unknown" : balance.balanced ? "good" : "bad";
    if (line.dataset.state !== state) {
      line.dataset.state = state;
      this.find("balance-word").textContent = say(`live.balance.${state}`);
    }
    this.find("balance-sum").textContent = balance === null ? "" : say("live.sum", {
      available: n(balance.available), pending: n(balance.pending), held: n(balance.held), confirmed: n(balance.confirmed), quantity: n(balance.quantity),
    });
    const wrong = balance?.wrong ?? [];
    this.find("balance-wrong").textContent = wrong.length ? say("live.wrong", { names: wrong.join(", ") }) : "";
  }

  allocations({ gate, allocations_more: more }) {
    const rows = this.find("left");
    for (const a of gate?.allocations ?? []) {
      const known = [...rows.children].find((row) => row.dataset.id === a.id);
      const row = known ?? copy("left-row");
      if (!known) {
        row.dataset.id = a.id;
        row.querySelector("th").textContent = a.id;
        rows.append(row);
      }
      const share = a.quantity && a.available !== null ? Math.max(0, a.available) / a.quantity : 0;
      row.dataset.state = a.state;
      row.querySelector(".bar span").style.width = `${share * 100}%`;
      row.querySelector(".left").textContent = n(a.available);
      row.querySelector(".of").textContent = n(a.quantity);
      row.querySelector(".state").textContent = stateOf(a.state);
    }
    this.find("more").textContent = more ? say("live.more", { n: more }) : "";
    this.find("armed").textContent = gate && !gate.armed ? say("live.unarmed") : "";
  }

  verdicts(verdicts) {
    if (!verdicts) return;
    const busiest = Object.keys(verdicts.totals).filter((word) => verdicts.totals[word] > 0 && !this.words.includes(word));
    if (busiest.length || !this.ratesChart.data) {
      this.words.push(...busiest);
      this.ratesChart.become(this.words.map((word) => ({ label: wordOf(word) })), this.rates.data());
      this.find("rates-legend").replaceChildren(...this.words.map((word, at) => el("li", {}, sample(at), wordOf(word))));
    } else this.ratesChart.set(this.rates.data());
    const sum = Object.values(verdicts.per_s).reduce((a, b) => a + b, 0);
    this.find("rate").textContent = seconds.format(sum);
    this.find("rate-held").textContent = seconds.format(verdicts.per_s.held ?? 0);
  }

  figures({ verdict_ms: wait, waiting, ledger, orders }) {
    const put = (name, text) => {
      this.find(name).textContent = text;
    };
    put("p50", ms(wait?.p50));
    put("p99", ms(wait?.p99));
    put("ending-1", n(ledger?.ending_1m) + (ledger?.ending_capped ? "+" : ""));
    put("ending-5", n(ledger?.ending_5m) + (ledger?.ending_capped ? "+" : ""));
    put("held", n(ledger?.held));
    put("confirmed", n(ledger?.confirmed));
    put("queue", waiting ? n(waiting.gate + waiting.ledger) : "–");
    put("processes", n(waiting?.processes));
    put("delivered", n(orders?.delivered));
    put("orders-waiting", n(orders?.waiting));
    put("dead", n(orders?.dead));
    put("oldest", orders ? `${seconds.format(orders.queue_oldest_s)} s` : "–");
    this.find("dead").closest("div").classList.toggle("alarm", (orders?.dead ?? 0) > 0);
  }

  /** The tables behind the charts, where they are open. */
  tables() {
    const { verdicts, verdict_ms: wait } = this.frame ?? {};
    if (this.find("rates-table").closest("details").open && verdicts) {
      fill(this.find("rates-table"), Object.keys(verdicts.totals).map((word) => [
        wordOf(word), el("td", { class: "num", "data-cell": "1" }, seconds.format(verdicts.per_s[word] ?? 0)), figure(verdicts.totals[word]),
      ]));
    }
    if (this.find("times-table").closest("details").open && wait) {
      fill(this.find("times-table"), this.times.rows.slice(-10).reverse().map(([at, row]) => [
        new Date(at * 1000).toLocaleTimeString(document.documentElement.lang, { timeZone: document.documentElement.dataset.zone, hourCycle: "h23" }),
        el("td", { class: "num", "data-cell": "1" }, ms(row.p50)), el("td", { class: "num", "data-cell": "1" }, ms(row.p99)), figure(row.n),
      ]));
    }
  }

  /** How old each figure is, by the server's clock and then by this page's. */
  ages() {
    if (!this.frame) return;
    const now = Date.parse(this.frame.at) + performance.now() - this.received;
    for (const mark of this.host.querySelectorAll("[data-age]")) {
      const group = this.frame[mark.dataset.age];
      const age = group ? Math.max(0, (now - Date.parse(group.at)) / 1000) : null;
      const state = age === null ? "none" : age >= GREY_S ? "grey" : age >= AMBER_S ? "amber" : "fresh";
      mark.dataset.state = state;
      const box = mark.closest("[data-group]");
      if (box) box.dataset.aged = state;
      mark.textContent = age === null ? say("live.none") : say(`live.${state}`, { s: seconds.format(age) });
    }
  }
}

/** Where the parts of the page that show a drop live are. */
export const liveHost = () => $("live");
