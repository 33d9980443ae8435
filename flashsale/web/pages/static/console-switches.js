// Stop, resume, close; and the F-codes of one drop. Stopping a sale is one press; the others ask.

import { $, askBack, busy, el, ops, tell, tellOf } from "./console.js";
import { say } from "./page.js";

export class Switches {
  /** `onchange(drop, etag)` hears what the drop is after a change. */
  constructor(id, onchange) {
    this.path = `/v1/ops/drops/${id}`;
    this.onchange = onchange;
    for (const name of ["stop", "resume", "close"]) $(name).addEventListener("click", () => busy($(name), () => this[name]()));
  }

  show(drop, etag = null) {
    this.be(drop);
    this.onchange(drop, etag);
  }

  /** What it is just now: by a drop, or by a frame of it. */
  be({ paused, held, closed, hidden = false }) {
    const state = closed ? "closed" : held ? "held" : paused ? "paused" : "running";
    this.held = held;
    const pill = $("pill");
    if (pill.dataset.state !== state) {
      pill.dataset.state = state;
      pill.textContent = say(`pill.${state}`);
    }
    $("stop").hidden = state !== "running";
    $("resume").hidden = state !== "paused" && state !== "held";
    $("resume").textContent = say(held ? "release" : "resume");
    $("close").hidden = closed || hidden;
  }

  async stop() {
    const answer = await ops("POST", `${this.path}/pause`, { data: {} });
    if (!tellOf(answer, say("stopped"))) return;
    this.show(answer.body, answer.etag);
    $("resume").focus();
  }

  async resume() {
    const held = this.held;
    const meant = await askBack($("resume"), {
      title: say(held ? "release.title" : "resume.title"), text: say(held ? "release.text" : "resume.text"), yes: say(held ? "release" : "resume"), reason: "may",
    });
    if (!meant) return;
    let answer = await ops("POST", `${this.path}/resume`, { data: meant });
    if (answer.status === 409 && answer.body.missing) answer = await this.force(answer.body.missing);
    if (answer === null || !tellOf(answer, say(held ? "released" : "resumed"))) return;
    this.show(answer.body, answer.etag);
    $("stop").focus();
  }

  /** Something is missing: released all the same only with a reason. */
  async force(missing) {
    tell(say("missing"), "bad");
    $("told").append(el("ul", {}, ...missing.map((item) => el("li", {}, item.allocation ? `${item.allocation}: ${item.detail}` : item.detail))));
    document.dispatchEvent(new Event("console:missing"));
    const meant = await askBack($("resume"), { title: say("force.title"), text: say("force.text"), yes: say("force"), reason: "must", danger: true });
    return meant && ops("POST", `${this.path}/resume`, { data: { ...meant, force: true } });
  }

  async close() {
    const meant = await askBack($("close"), { title: say("close.title"), text: say("close.text"), yes: say("close"), reason: "may", danger: true });
    if (!meant) return;
    const answer = await ops("POST", `${this.path}/close`, { data: meant });
    if (tellOf(answer, say("closed"))) this.show(answer.body, answer.etag);
  }
}

/** The switch of a drop's F-codes, where it has any. */
export class LaneSwitch {
  constructor(path, onchange) {
    this.button = $("lane-switch");
    this.button.addEventListener("click", () => busy(this.button, () => this.turn(path, onchange)));
  }

  show(drop) {
    this.stopped = drop.fcodes_stopped;
    this.button.hidden = !drop.allocations.some((a) => a.access.kind === "fcode");
    this.button.textContent = say(this.stopped ? "lane.go" : "lane.stop");
  }

  async turn(path, onchange) {
    const stopped = !this.stopped;
    const words = stopped ? { title: say("lane.stop.title"), text: say("lane.stop.text"), danger: true } : { title: say("lane.go.title") };
    const meant = await askBack(this.button, { ...words, yes: this.button.textContent, reason: "must" });
    if (!meant) return;
    const answer = await ops("POST", `${path}/fcode-switch`, { data: { stopped, reason: meant.reason } });
    const done = answer.ok && answer.body.fcodes_stopped !== stopped ? "lane.still" : stopped ? "lane.stopped" : "lane.gone";
    if (tellOf(answer, say(done))) onchange(answer.body);
  }
}
