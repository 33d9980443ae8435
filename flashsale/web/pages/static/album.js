// The album, and pages of its kind: nothing but who is signed in.

import { whoIsIt } from "./page.js";

const out = document.getElementById("out");
const session = await whoIsIt();
if (session && out) out.hidden = false;
