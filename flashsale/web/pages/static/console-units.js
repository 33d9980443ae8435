// Units of a drop that is set up, also while it sells: change an allocation, move units, add a batch.

import { $, busy, el, fill, figure, n, ops, tell, tellOf } from "./console.js";
import { AllocationFields, change } from "./console-allocation.js";
import { blame, clear, complete, explain, fromField, toField } from "./console-fields.js";
import { say } from "./page.js";

export class Units {
  /** `state` is {drop, etag} as it was read; `onchange(drop, etag)` hears of what we changed. */
  constructor(path, state, onchange) {
    Object.assign(this, { path, state, onchange });
    this.batch = new AllocationFields(() => this.sum());
    this.batch.place(null, say("allocation", { n: "" }));
    this.batch.root.querySelector(".remove").remove();
    $("batch-fields").append(this.batch.root);
    $("edit-which").addEventListener("change", () => this.choose());
    for (const name of ["move-from", "move-to", "move-count"]) $(name).addEventListener("input", () => this.after());
    this.form("edit", () => this.save());
    this.form("move", () => this.move());
    this.form("batch", () => this.add());
    this.filled = false;
  }

  form(name, work) {
    $(name).addEventListener("submit", (event) => {
      event.preventDefault();
      busy($(`${name}-save`), async () => {
        tell("");
        clear($(name));
        if (complete($(name))) await work();
      });
    });
  }

  /** What came of a change: at its field, or in the line for that. */
  told(name, answer, done) {
    if (!answer.ok && explain($(name), answer)) return false;
    return tellOf(answer, done);
  }

  of(id) {
    return this.state.drop.allocations.find((a) => a.id === id);
  }

  /** The names to choose from; what stands in the fields stays. */
  show(drop) {
    const names = drop.allocations.map((a) => a.id);
    for (const id of ["edit-which", "move-from", "move-to"]) {
      const chosen = $(id).value;
      if ([...$(id).options].map((o) => o.value).join() === names.join()) continue;
      $(id).replaceChildren(...names.map((name) => el("option", { value: name }, name)));
      $(id).value = names.includes(chosen) ? chosen : names[id === "move-to" ? Math.min(1, names.length - 1) : 0];
    }
    $("move-box").hidden = names.length < 2;
    if (!this.filled) {
      this.filled = true;
      this.choose();
      const last = drop.allocations[drop.allocations.length - 1];
      this.batch.set({ ...last, id: "", quantity: "", opens_at: last.closes_at, closes_at: new Date(2 * Date.parse(last.closes_at) - Date.parse(last.opens_at)).toISOString() });
    }
    this.after();
    this.sum();
  }

  choose() {
    const a = this.of($("edit-which").value);
    $("edit-quantity").value = a.quantity;
    $("edit-hint").textContent = say("edit.hint", { taken: n(a.taken) });
    $("edit-opens").value = toField(a.opens_at);
    $("edit-closes").value = toField(a.closes_at);
    $("edit-channel").value = a.channel ?? "";
    this.read = { opens_at: $("edit-opens").value, closes_at: $("edit-closes").value, quantity: String(a.quantity), channel: a.channel ?? "" };
    clear($("edit"));
  }

  edit(id) {
    $("edit-box").open = true;
    $("edit-which").value = id;
    this.choose();
    $("edit-quantity").focus();
  }

  async save() {
    const [opens, closes] = [$("edit-opens").value, $("edit-closes").value];
    const data = {};
    if ($("edit-quantity").value !== this.read.quantity) data.quantity = Number($("edit-quantity").value);
    if (opens !== this.read.opens_at) data.opens_at = fromField(opens);
    if (closes !== this.read.closes_at) data.closes_at = fromField(closes);
    if ($("edit-channel").value.trim() !== this.read.channel) data.channel = $("edit-channel").value.trim() || null;
    if (!Object.keys(data).length) return tell(say("saved"));
    const answer = await ops("PATCH", `${this.path}/allocations/${$("edit-which").value}`, { data, etag: this.state.etag });
    if (!this.told("edit", answer, say("saved"))) return undefined;
    this.onchange(answer.body, answer.etag);
    return this.choose();
  }

  /** What there would be after the move. */
  after() {
    const [from, to, count] = [this.of($("move-from").value), this.of($("move-to").value), Number($("move-count").value)];
    if (!from || !to) return;
    $("move-sum").textContent = from === to ? say("move.same") : say("move.sum", {
      from: from.id, to: to.id, a: change(from.quantity, from.quantity - (count || 0)), b: change(to.quantity, to.quantity + (count || 0)),
    });
  }

  async move() {
    const data = { from: $("move-from").value, to: $("move-to").value, count: Number($("move-count").value) };
    const reason = $("move-reason").value.trim();
    if (reason) data.reason = reason;
    const answer = await ops("POST", `${this.path}/moves`, { data, etag: this.state.etag });
    if (answer.status === 409 && answer.body.free !== undefined) {
      blame($("move-count"), answer.detail, true).focus();
      return undefined;
    }
    if (!this.told("move", answer, say("moved", { n: n(data.count) }))) return undefined;
    const { before, after } = answer.body;
    fill($("moved").querySelector("tbody"), before.map((row, at) => [row.id, figure(row.quantity), figure(after[at].quantity), figure(row.free), figure(after[at].free)]));
    $("moved").hidden = false;
    $("moved-title").focus();
    $("move-count").value = "";
    const now = await ops("GET", this.path);
    if (now.ok) this.onchange(now.body, answer.etag);
    return undefined;
  }

  /** The drop's units, before and after. */
  sum() {
    const all = this.state.drop?.allocations.reduce((sum, a) => sum + a.quantity, 0) ?? 0;
    $("batch-sum").textContent = say("batch.sum", { change: change(all, all + (Number(this.batch.fields.quantity.value) || 0)) });
  }

  async add() {
    const answer = await ops("POST", `${this.path}/allocations`, { data: this.batch.get(), etag: this.state.etag });
    if (!this.told("batch", answer, say("added"))) return;
    this.batch.fields.id.value = "";
    this.batch.fields.quantity.value = "";
    $("batch-box").open = false;
    this.onchange(answer.body, answer.etag);
  }
}
