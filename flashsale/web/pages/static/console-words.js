// What shoppers read of a drop, in both languages, and its picture.

import { $, ops } from "./console.js";
import { blame } from "./console-fields.js";
import { say } from "./page.js";

const LANGUAGES = ["zh", "en"];
const PARTS = ["title", "description", "notice"];
let picture = null;

export function setTexts(texts, shown) {
  for (const language of LANGUAGES) {
    for (const part of PARTS) {
      const field = $(`${language}-${part}`);
      if (field) field.value = texts[language]?.[part] ?? "";
    }
  }
  picture = shown;
  $("picture").value = "";
  $("picture-now").textContent = picture ? say("picture.now") : "";
  $("picture-shown").hidden = !picture;
  if (picture) $("picture-shown").src = `/pictures/${picture}`;
}

/** The texts of both languages; those that have no field here stay as they are in `kept`. */
export function getTexts(kept = {}) {
  const texts = {};
  for (const language of LANGUAGES) {
    texts[language] = { ...kept[language] };
    for (const part of PARTS) {
      const field = $(`${language}-${part}`);
      if (!field) continue;
      const text = field.value.trim().replace(/\r\n?/g, "\n");
      if (text) texts[language][part] = text;
      else delete texts[language][part];
    }
  }
  return texts;
}

/** The id of the picture, sent first if one was chosen; undefined when it was refused, which is said at the field. */
export async function getPicture() {
  const [file] = $("picture").files;
  if (!file) return picture;
  const answer = await ops("POST", "/v1/ops/pictures", { file, type: "application/octet-stream", timeout: 120000 });
  if (!answer.ok) {
    blame($("picture"), answer.detail, answer.status !== 0).focus();
    return undefined;
  }
  picture = answer.body.picture;
  return picture;
}
