// The conversation of this tab: send, stop, retry, edit, delete, branches, keep.

import { getKey } from "./api.js";
import { fetchAnswer } from "./answer.js";
import { ask } from "./ask.js";
import { countSoon } from "./context.js";
import { $, many } from "./dom.js";
import { fetchMarkdown } from "./libraries.js";
import { editMessage, messageButtons, messageNode, updateAnswer } from "./messages.js";
import { requestBody } from "./request.js";
import { curl, python } from "./snippets.js";
import { finish, say } from "./speech.js";
import { newChat, openChat, saveChat, showChat } from "./store.js";
import { add, countBelow, path, remove, showBranch, siblings } from "./tree.js";

const SAVE_EVERY = 400; // ms, while an answer grows

let chat = newChat();
let answering = null; // AbortController of the answer that grows
let saving = 0;
let leaving = false; // the page goes: a broken answer is then no failure
let cannotKeep = () => {};
let draft = () => null; // what is being written, as a message

export const currentChat = () => chat;
export const isAnswering = () => answering !== null;

/** Shows the conversation of before a reload. `onDraft()` gives what is being written, or null. */
export async function startChat(onCannotKeep, onDraft) {
  [cannotKeep, draft] = [onCannotKeep, onDraft];
  addEventListener("pagehide", () => {
    leaving = true;
    keep();
  });
  // its answer broke when it was put away
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  chat = await openChat();
  showChat(chat);
  if (chat.leaf) await fetchMarkdown().catch(() => {}); // drawn once, not as plain text first
  drawAll();
}

/** Leaves the conversation as it is kept and shows another one, or a new one. */
export function switchChat(other = newChat()) {
  stop();
  keep(chat, false);
  chat = other;
  showChat(chat);
  drawAll();
  say(chat.leaf ? "Conversation opened." : "New conversation.");
  $("prompt").focus();
}

/** After a change of its settings. */
export function settingsChanged() {
  keep();
  drawSystem();
  recount();
}

export function stop() {
  answering?.abort();
}

/** A question, and then the answer to it. */
export function send({ content, files = [], pictures = [] }) {
  const beside = { ...(files.length && { files }), ...(pictures.length && { pictures }) };
  add(chat, chat.leaf, { role: "user", content, ...beside });
  answer();
}

/** What the meter shows: the conversation with what is being written. */
export function recount(pause) {
  countSoon(() => {
    if (answering) return null;
    const written = draft();
    return { settings: chat.settings, nodes: [...seen(path(chat)), ...(written ? [written] : [])] };
  }, pause);
}

/** Another answer to the question before `message`. */
function retry(message) {
  if (answering) return;
  if (message.state === "failed" && siblings(chat, message).length === 1) delete chat.nodes[message.id];
  chat.leaf = message.parent;
  $("prompt").focus();
  answer();
}

async function answer() {
  const mine = chat; // another one may be shown before this ends
  const nodes = path(mine);
  const message = add(mine, mine.leaf, { role: "assistant", content: "", state: "streaming" });
  const control = (answering = new AbortController());
  drawAll();
  keep();
  busy(true);
  say("Answering.");
  const node = $("messages").lastElementChild;
  await fetchAnswer(mine, nodes, message, control.signal, () => {
    draw(node, message);
    keepSoon(mine);
  });
  if (leaving) return;
  clearTimeout(saving);
  saving = 0;
  keep(mine);
  if (answering === control) answering = null;
  if (mine !== chat) return;
  draw(node, message, true);
  drawAll();
  finish(message.error ?? (message.state === "stopped" ? "Stopped." : "End of the answer."));
}

// ---- what can be done with a message ----

/** Edits the latest question. */
export function editLast() {
  const last = path(chat).findLastIndex(({ role }) => role === "user");
  if (last >= 0 && !answering) edit(path(chat)[last], $("messages").children[last]);
}

/** A changed question is asked; a changed answer only stands there. Both stand beside what was there before. */
function edit(message, node) {
  if (answering) return;
  const question = message.role === "user";
  editMessage(node, message, question ? "Send" : "Keep", (text) => {
    if (text && text !== message.content) {
      const { role, files, pictures } = message;
      const beside = { ...(files && { files }), ...(pictures && { pictures }), ...(!question && { state: "done" }) };
      add(chat, message.parent, { role, content: text, ...beside });
      if (question) return answer();
      keep();
    }
    drawAll(false);
    $("prompt").focus();
  });
}

async function removeMessage(message) {
  if (answering) return;
  const below = countBelow(chat, message);
  const rest = below ? ` and the ${many(below, "message")} after it` : "";
  if (!(await ask(`Delete this message${rest}?`, "Delete"))) return;
  remove(chat, message);
  keep();
  drawAll(false);
}

function actions(message, nodes, index) {
  const before = nodes.slice(0, index);
  const answered = message.role === "assistant";
  const beside = siblings(chat, message);
  const snippet = (make) => () => make(requestBody(chat, seen(before)), location.origin, Boolean(getKey()));
  return messageButtons({
    text: () => message.content,
    edit: (event) => edit(message, event.target.closest("li")),
    retry: answered && (() => retry(message)),
    leaveOut: answered && message.tooLong && index === nodes.length - 1 && (() => leaveOut(message)),
    remove: () => removeMessage(message),
    asCurl: answered && snippet(curl),
    asPython: answered && snippet(python),
    place: { index: beside.indexOf(message), of: beside.length },
    turn: (to) => {
      if (answering) return;
      showBranch(chat, beside[to]);
      keep();
      drawAll(false);
    },
  });
}

function leaveOut(message) {
  chat.settings.leave_out = true;
  retry(message);
}

/** Those of the messages that the model was shown last time. */
function seen(nodes) {
  const first = chat.settings.leave_out ? nodes.findIndex(({ id }) => id === chat.firstSeen) : 0;
  return nodes.slice(Math.max(first, 0));
}

// ---- keeping ----

async function keep(which = chat, touched = true) {
  if (!(await saveChat(which, touched))) cannotKeep();
}

function keepSoon(which) {
  saving ||= setTimeout(() => {
    saving = 0;
    keep(which);
  }, SAVE_EVERY);
}

// ---- drawing ----

function drawAll(toEnd = true) {
  const nodes = path(chat);
  const stays = $("scroller").scrollTop;
  const hidden = nodes.length - seen(nodes).length;
  const items = nodes.map((message, i) => {
    const node = messageNode(message, actions(message, nodes, i));
    node.classList.toggle("left-out", i < hidden);
    if (hidden && i === hidden) node.classList.add("first-seen");
    return node;
  });
  $("messages").replaceChildren(...items);
  $("welcome").hidden = items.length > 0;
  busy(answering !== null);
  drawSystem();
  if (toEnd) follow();
  else $("scroller").scrollTop = stays;
  recount(0);
}

function drawSystem() {
  const { system } = chat.settings;
  $("system-shown").hidden = !system;
  $("system-shown").lastElementChild.textContent = system ?? "";
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
  if (yes) for (const button of $("messages").querySelectorAll(".change")) button.disabled = true;
}

const drawn = new WeakMap(); // node -> animation frame that will draw it

function draw(node, message, now = false) {
  if (now) {
    cancelAnimationFrame(drawn.get(node));
    drawn.delete(node);
    return paint(node, message);
  }
  if (drawn.has(node)) return;
  drawn.set(
    node,
    requestAnimationFrame(() => {
      drawn.delete(node);
      paint(node, message);
    }),
  );
}

function paint(node, message) {
  const stays = atEnd();
  updateAnswer(node, message);
  if (stays) follow();
}

const scroller = () => $("scroller");

function atEnd() {
  const box = scroller();
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

function follow() {
  scroller().scrollTop = scroller().scrollHeight;
}
