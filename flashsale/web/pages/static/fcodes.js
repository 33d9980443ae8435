import { whoIsIt } from "./nav.js";

whoIsIt();
