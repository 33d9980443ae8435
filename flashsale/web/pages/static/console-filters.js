// A search form and its address: what is searched for can be kept as a bookmark, and sent to somebody.

import { fromField, toField } from "./console-fields.js";

const fields = (form) => [...form.elements].filter((field) => field.dataset.api);

/** What the form asks for. */
export function queryOf(form) {
  const query = new URLSearchParams();
  for (const field of fields(form)) {
    const text = field.type === "datetime-local" ? fromField(field.value) : field.value.trim();
    if (text) query.set(field.dataset.api, text);
  }
  return query;
}

/** Fill the form from the address. */
export function restore(form) {
  const query = new URLSearchParams(location.search);
  for (const field of fields(form)) {
    const text = query.get(field.dataset.api);
    if (!text) continue;
    if (field.type === "datetime-local") {
      if (!Number.isNaN(Date.parse(text))) field.value = toField(text);
    } else field.value = text;
  }
}
