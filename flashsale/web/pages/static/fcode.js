// F-codes as people type them: forgiving about case, spaces and look-alikes; a typo is caught by the check symbol, before
// anything is sent. The rules are those of the Python library `fcodes`; its test vectors are run against this module, too.

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SYMBOLS = 20;
const LONGEST = 64;
const LOOKALIKE = { O: "0", I: "1", L: "1" };
const SEPARATORS = /[\s\p{Zs}\p{Zl}\p{Zp}\p{Cf}\p{Pd}\p{Pc}\u2212\u2043\u02d7\u30fc]/gu;

/** The typed text without what only separates, in capitals, look-alikes read as what they mean. */
function signs(text) {
  const plain = [...text.normalize("NFKC").replace(SEPARATORS, "")];
  return plain.map((sign) => {
    const capital = /^[a-z]$/.test(sign) ? sign.toUpperCase() : sign;
    return LOOKALIKE[capital] ?? capital;
  });
}

/** In groups of four. */
export const grouped = (text) => (signs(text).join("").match(/.{1,4}/gu) ?? []).join("-");

/** Horner's rule over GF(32) with x^5 + x^2 + 1: zero for a code without a typo. */
function sum(values) {
  let total = 0;
  values.forEach((value, place) => {
    total ^= value;
    if (place < values.length - 1) total = total & 16 ? (total << 1) ^ 37 : total << 1;
  });
  return total;
}

/** {code} as it is written, or {slip, n, sign}: too_long, empty, symbol, length or check, the first that applies. */
export function parse(text) {
  if ([...text].length > LONGEST || [...text.normalize("NFKC")].length > LONGEST) return { slip: "too_long" };
  const typed = signs(text);
  if (!typed.length) return { slip: "empty" };
  const values = typed.map((sign) => ALPHABET.indexOf(sign));
  const wrong = values.indexOf(-1);
  if (wrong >= 0) return { slip: "symbol", n: wrong + 1, sign: typed[wrong] };
  if (typed.length !== SYMBOLS) return { slip: "length", n: typed.length };
  return sum(values) ? { slip: "check", n: SYMBOLS } : { code: grouped(typed.join("")) };
}

/** Keep a field in groups of four while it is typed or pasted into, the caret where it was. */
export function groupField(field) {
  field.addEventListener("input", (event) => {
    if (event.isComposing) return;
    const before = signs(field.value.slice(0, field.selectionStart)).length;
    const text = grouped(field.value);
    if (text === field.value) return;
    field.value = text;
    const caret = Math.min(text.length, before + Math.max(0, Math.ceil(before / 4) - 1));
    field.setSelectionRange(caret, caret);
  });
}
