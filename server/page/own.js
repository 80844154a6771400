// Which of the answers on the card is this page's. The live view tells numbers only: it is the one that came after the
// question was sent and whose prompt is as long.

const LONGEST = 60; // characters of a question that are shown

let running = new Set(); // numbers of the latest picture
let before = new Set(); // those that ran when the question was sent
let tokens = 0;
let number = null;
let asked = "";
let tell = () => {};

/** The question was sent; `progress(answer)` is called with what each picture says of its answer. */
export function begin(question, promptTokens, progress) {
  [asked, before, tokens, number, tell] = [question, running, promptTokens, null, progress];
}

export function end() {
  tokens = 0;
}

/** Looks for it among the answers of a picture. */
export function find(answers) {
  running = new Set(answers.map((answer) => answer.number));
  if (number !== null && !running.has(number)) number = null;
  if (!tokens) return;
  const isIt = (a) => (number === null ? !before.has(a.number) && a.prompt_tokens === tokens : a.number === number);
  const own = answers.find(isIt);
  if (!own) return;
  number = own.number;
  tell(own);
}

export const isOwn = (other) => other === number;

/** How the question begins whose answer is this page's. */
export const ownQuestion = () => (asked.length > LONGEST ? `${asked.slice(0, LONGEST)}…` : asked);
