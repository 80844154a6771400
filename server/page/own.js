// Which of the answers on the card is this page's. The live view tells numbers only: it is the one that came after the
// question was sent and whose prompt is as long.

let running = new Set(); // numbers of the latest picture
let before = new Set(); // those that ran when the question was sent
let tokens = 0;
let number = null;

export function begin(promptTokens) {
  [before, tokens, number] = [running, promptTokens, null];
}

export function end() {
  tokens = 0;
}

/** Looks for it among the answers of a picture; its number, or null. */
export function find(answers) {
  running = new Set(answers.map((answer) => answer.number));
  if (number !== null && !running.has(number)) number = null;
  if (number === null && tokens)
    number = answers.find((a) => !before.has(a.number) && a.prompt_tokens === tokens)?.number ?? null;
  return number;
}

export const isOwn = (other) => other === number;
