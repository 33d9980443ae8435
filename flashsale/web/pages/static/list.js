// A list of what is mine, page by page, made of a <template id="row">.

import { call, passing, waitFor } from "./net.js";
import { say, showMember, signInPath } from "./page.js";

const [rows, word, older] = ["rows", "say", "older"].map((id) => document.getElementById(id));
const row = document.getElementById("row").content.firstElementChild;

/** Ask until there is an answer, which is {status, body}. */
export async function ask(method, path, options) {
  for (let tries = 1; ; tries += 1) {
    const answer = await call(method, path, options);
    if (!passing(answer.status)) return answer;
    word.textContent = say("failed");
    await new Promise((done) => setTimeout(done, waitFor(answer.retryAfter, tries) * 1000));
  }
}

function signIn() {
  const link = document.createElement("a");
  link.className = "button";
  link.href = signInPath();
  link.textContent = say("signin");
  word.replaceChildren(link);
}

/** Show a list: `fill(li, item)` fills a row, and may be called again for the same one. */
export async function list(path, fill) {
  let after = "";
  const session = await ask("GET", "/v1/me/session");
  if (!session.body.signed_in) return signIn();
  showMember(session.body.member);
  const page = async () => {
    const { status, body } = await ask("GET", `${path}?limit=20${after}`);
    if (status === 401) return signIn();
    word.textContent = status === 200 ? "" : (body?.detail ?? say("failed"));
    for (const item of body?.items ?? []) {
      const li = row.cloneNode(true);
      fill(li, item);
      rows.append(li);
    }
    if (!rows.children.length && status === 200) word.textContent = say("none");
    after = body?.next ? `&after=${encodeURIComponent(body.next)}` : "";
    older.hidden = !after;
    return undefined;
  };
  older.addEventListener("click", page);
  return page();
}

/** The title of a drop in the page's language; its id, while it is not known. Each is asked for once. */
const titles = new Map();
export function titleOf(drop, lang) {
  if (!titles.has(drop)) {
    titles.set(
      drop,
      call("GET", `/v1/drops/${drop}`).then(({ status, body }) => {
        if (status !== 200) return drop;
        const [own, other] = lang === "zh" ? ["zh", "en"] : ["en", "zh"];
        return body.texts?.[own]?.title ?? body.texts?.[other]?.title ?? body.title;
      }),
    );
  }
  return titles.get(drop);
}
