// How a message looks. Its node is made once and brought up to date as the answer grows.

import { code } from "./code.js";
import { button, copyButton, count, el, many, rate } from "./dom.js";
import { show } from "./markdown.js";
import { pictureNode } from "./pictures.js";

const NOTES = {
  stopped: "Stopped by you.",
  cut: "Cut off by a reload of the page.",
  waiting: "Waits until the model can answer.",
  length: "It ended at the token limit.",
};

const CHANGE = "quiet change"; // not while an answer grows

/** The list item of a message. `buttons` stand under it. */
export function messageNode(message, buttons) {
  const actions = el("div", { className: "actions", role: "group", "aria-label": "What can be done" }, ...buttons);
  const node = message.role === "user" ? questionNode(message) : answerNode(message);
  node.append(actions);
  return node;
}

function questionNode({ content, files = [], pictures = [] }) {
  const shown = files.map(({ name, text }) =>
    el(
      "details",
      { className: "file" },
      el("summary", {}, `${name} (${count(text.length)} characters)`),
      el("pre", { tabIndex: 0, role: "group", "aria-label": `Text of ${name}` }, text),
    ),
  );
  if (pictures.length) shown.unshift(el("div", { className: "pictures" }, ...pictures.map((picture) => pictureNode(picture))));
  const bubble = el("div", { className: "bubble" }, ...shown, content && el("div", { className: "said" }, content));
  return el("li", { className: "user" }, el("h2", { className: "hidden" }, "You"), bubble);
}

function answerNode(message) {
  const node = el("li", { className: "assistant" }, el("h2", { className: "hidden" }, "Answer"));
  const thoughts = el("div", { className: "text" });
  const reasoning = el("details", { className: "reasoning", hidden: true }, el("summary", {}, "Reasoning"), thoughts);
  const text = el("div", { className: "text" });
  const tools = el("div", { className: "tools" });
  const error = el("p", { className: "error", hidden: true });
  const note = el("p", { className: "figures", hidden: true });
  node.append(reasoning, text, tools, error, note);
  node.parts = { reasoning, text, tools, error, note };
  updateAnswer(node, message);
  return node;
}

/** Shows what an answer has become. */
export function updateAnswer(node, message) {
  const { reasoning, text, tools, error, note } = node.parts;
  node.dataset.state = message.state;
  node.setAttribute("aria-busy", String(message.state === "streaming"));
  reasoning.hidden = !message.reasoning;
  if (message.reasoning) show(reasoning.lastElementChild, message.reasoning);
  show(text, message.content);
  showTools(tools, message.tools ?? []);
  error.hidden = !message.error;
  error.textContent = message.error ?? "";
  const figures = [NOTES[message.state] ?? NOTES[message.finish], ...usage(message)].filter(Boolean);
  note.hidden = !figures.length;
  note.textContent = figures.join(" · ");
}

function showTools(box, tools) {
  if (!tools.length) return;
  const shown = ({ name, arguments: given }) =>
    el("div", {}, el("p", { className: "tool" }, `Calls the tool ${name}`), code(given, "arguments"));
  box.replaceChildren(...tools.map(shown));
}

/** What the answer cost, as phrases. */
function usage(message) {
  const { usage: used, timing, reading } = message;
  const phrases = [];
  if (reading) phrases.push(`reads the conversation: ${count(reading[0])} of ${many(reading[1], "token")}`);
  if (used) {
    const cached = used.prompt_tokens_details?.cached_tokens ?? 0;
    const thought = used.completion_tokens_details?.reasoning_tokens ?? 0;
    phrases.push(`prompt ${many(used.prompt_tokens, "token")}${cached ? ` (${count(cached)} cached)` : ""}`);
    phrases.push(`answer ${many(used.completion_tokens, "token")}${thought ? ` (${count(thought)} reasoning)` : ""}`);
  }
  if (timing) {
    phrases.push(`first after ${timing.first.toFixed(2)} s`);
    if (timing.rate) phrases.push(`this answer: ${rate(timing.rate)} tokens/s${timing.emulated ? ", emulated" : ""}`);
  }
  return phrases;
}

/** The buttons under a message, from what can be done with it: functions, null where it cannot. */
export function messageButtons({ text, edit, retry, leaveOut, remove, asCurl, asPython, place, turn }) {
  const { index, of } = place;
  const another = of > 1 && [
    button("‹", "The version before", () => turn(index - 1), CHANGE),
    el("span", { className: "place" }, `${index + 1} of ${of}`),
    button("›", "The version after", () => turn(index + 1), CHANGE),
  ];
  if (another) {
    another[0].disabled = index === 0;
    another[2].disabled = index === of - 1;
  }
  return [
    ...(another || []),
    leaveOut && button("Leave out the oldest turns", "Ask again without the beginning", leaveOut, `${CHANGE} way-out`),
    retry && button("Retry", "Ask again; this answer is kept beside the new one", retry, `${CHANGE} retry`),
    copyButton("Copy", "Copy the text", text),
    button("Edit", "Change it; what is here now is kept beside it", edit, CHANGE),
    button("Delete", "Delete this message and what follows it", remove, CHANGE),
    asCurl && copyButton("Copy as curl", "Copy the request as a curl command", asCurl),
    asPython && copyButton("Copy as Python", "Copy the request as a Python program", asPython),
  ].filter(Boolean);
}

/** Turns a message's text into a field; `done(text)` with the new text, or null. */
export function editMessage(node, message, action, done) {
  const field = el("textarea", { className: "editing", value: message.content, "aria-label": "Text of the message" });
  const end = (text) => () => done(text());
  const box = el(
    "div",
    { className: "edit" },
    field,
    el(
      "div",
      { className: "edit-buttons" },
      button(
        "Cancel",
        "Leave it as it is",
        end(() => null),
        "",
      ),
      button(
        action,
        "",
        end(() => field.value.trim()),
        "main",
      ),
    ),
  );
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") done(null);
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done(field.value.trim());
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  node.replaceChildren(box);
  field.style.height = `${Math.min(field.scrollHeight + 4, innerHeight / 2)}px`;
  field.focus();
}
