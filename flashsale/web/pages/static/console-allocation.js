// The fields of an allocation, as they stand in the form of a new drop and in that of one more batch.

import { copy, n } from "./console.js";
import { fromField, toField } from "./console-fields.js";

let made = 0;

/** Fields for one allocation; `at` is its place in the body's list, null: the body is the allocation itself. */
export class AllocationFields {
  constructor(onchange = () => {}) {
    this.root = copy("allocation");
    this.fields = {};
    made += 1;
    for (const field of this.root.querySelectorAll("[data-api]")) {
      const name = field.dataset.api;
      this.fields[name] = field;
      field.id = `a${made}-${name.replace(".", "-")}`;
      field.previousElementSibling.htmlFor = field.id;
      field.dataset.own = name;
    }
    this.fields["access.kind"].addEventListener("change", () => this.kind());
    this.root.addEventListener("input", onchange);
    this.root.addEventListener("change", onchange);
    this.kind();
  }

  /** Show the fields of its rule only. */
  kind() {
    const kind = this.fields["access.kind"].value;
    for (const part of this.root.querySelectorAll("[data-for]")) {
      part.hidden = !part.dataset.for.split(" ").includes(kind);
      part.querySelector("input").disabled = part.hidden;
    }
  }

  place(at, legend) {
    this.root.querySelector("legend span").textContent = legend;
    for (const field of Object.values(this.fields)) field.dataset.api = at === null ? field.dataset.own : `allocations[${at}].${field.dataset.own}`;
  }

  set(a) {
    const { fields } = this;
    fields.id.value = a.id ?? "";
    fields.quantity.value = a.quantity ?? "";
    fields.opens_at.value = a.opens_at ? toField(a.opens_at) : "";
    fields.closes_at.value = a.closes_at ? toField(a.closes_at) : "";
    fields["access.kind"].value = a.access?.kind ?? "everyone";
    fields["access.snapshot"].value = a.access?.snapshot ?? "";
    fields["access.at_least"].value = a.access?.at_least ?? "";
    fields.channel.value = a.channel ?? "";
    this.kind();
  }

  /** The allocation as the API takes it. */
  get() {
    const { fields } = this;
    const kind = fields["access.kind"].value;
    const access = { kind };
    if (kind === "points") access.snapshot = fields["access.snapshot"].value.trim();
    if (kind === "points" || kind === "tier") access.at_least = Number(fields["access.at_least"].value);
    return {
      id: fields.id.value.trim(),
      quantity: Number(fields.quantity.value),
      opens_at: fromField(fields.opens_at.value),
      closes_at: fromField(fields.closes_at.value),
      access,
      ...(fields.channel.value.trim() ? { channel: fields.channel.value.trim() } : {}),
    };
  }
}

/** "12 → 15 units", as it is shown before and after a change. */
export const change = (before, after) => `${n(before)} → ${n(after)}`;
