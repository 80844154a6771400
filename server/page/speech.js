// What a screen reader hears of a growing answer: whole sentences, now and then, not every token.

import { $ } from "./dom.js";

const PAUSE = 3000; // ms between two pieces

let waiting = "";
let timer = 0;

/** Says something at once; what was still waiting is dropped. */
export function say(text) {
  clearTimeout(timer);
  timer = 0;
  waiting = "";
  speak(text);
}

/** More of the answer. */
export function hear(text) {
  waiting += text;
  timer ||= setTimeout(release, PAUSE);
}

/** The answer is over: the rest, and how it ended. */
export function finish(note = "") {
  clearTimeout(timer);
  timer = 0;
  speak(`${waiting} ${note}`.trim());
  waiting = "";
}

function release() {
  timer = 0;
  const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => waiting.lastIndexOf(mark)));
  if (end >= 0) {
    speak(waiting.slice(0, end + 1));
    waiting = waiting.slice(end + 1);
  }
  if (waiting) timer = setTimeout(release, PAUSE);
}

function speak(text) {
  const spoken = $("spoken");
  while (spoken.children.length > 3) spoken.firstElementChild.remove(); // said long ago
  const line = document.createElement("p");
  line.textContent = text;
  spoken.append(line);
}
