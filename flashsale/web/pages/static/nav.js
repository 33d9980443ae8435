// Who is signed in, in the page's head, and where to come back to after signing in.

import { call, signedIn } from "./net.js";

const who = document.getElementById("who");
const path = location.pathname;

export const signInPath = () => `${who.pathname}?next=${encodeURIComponent(path + location.search)}`;

export function showMember(member) {
  if (member) who.textContent = who.dataset.member.replace("{member}", member);
}

for (const link of document.querySelectorAll(".top nav a")) {
  if (link.pathname === path) link.setAttribute("aria-current", "page");
}
if (who && !path.endsWith("/sign-in")) who.href = signInPath();

/** Ask who is signed in, and show it. */
export async function whoIsIt() {
  if (!signedIn()) return null;
  const { status, body } = await call("GET", "/v1/me/session");
  if (status !== 200 || !body.signed_in) return null;
  showMember(body.member);
  return body;
}
