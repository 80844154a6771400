// Puts the rooms together.

import { getKey } from "./api.js";
import { currentChat, isAnswering, settingsChanged, startChat, stop, switchChat } from "./chat.js";
import { showChats, startChats } from "./chats.js";
import { draft, showThinking, startComposer } from "./composer.js";
import { $, el } from "./dom.js";
import { fetchMarkdown } from "./libraries.js";
import { cardShown, startLive } from "./live.js";
import { setServed, startModels } from "./model.js";
import { showSettings, startSettings } from "./settings.js";

const buttons = document.querySelectorAll(".switch button");
let shown = "";

/** The model's name, and what must not be overlooked about it. */
function showFacts(facts) {
  setServed(facts);
  const { model, emulated, toy } = facts;
  const now = JSON.stringify([model, emulated, toy]);
  if (now === shown) return;
  shown = now;
  $("model").textContent = model ?? "";
  const tags = [emulated && "emulated card", toy && "toy model"].filter(Boolean);
  $("tags").replaceChildren(...tags.map((tag) => el("span", { className: "tag" }, tag)));
  document.title = model ? `${model} · axpress` : "axpress";
}

function showView(view) {
  document.body.dataset.view = view;
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  if (view === "card") cardShown();
}

function newConversation() {
  switchChat();
  showThinking();
}

function pressed(event) {
  const open = document.querySelector("dialog[open]");
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (event.key === "Escape" && isAnswering() && !open) return stop();
  if (control && !event.shiftKey && key === "k") showChats();
  else if (control && event.shiftKey && key === "o" && !open) newConversation();
  else return;
  event.preventDefault();
}

startModels();
startComposer();
const watchAgain = startLive(showFacts, () => {
  if (!getKey()) showSettings(currentChat().settings, "key");
});
startSettings(currentChat, (newKey) => {
  settingsChanged();
  if (newKey) watchAgain();
});
startChats();
$("new-chat").addEventListener("click", newConversation);
for (const button of buttons) button.addEventListener("click", () => showView(button.dataset.view));
document.addEventListener("keydown", pressed);
await startChat(() => {
  $("welcome").textContent = "This browser keeps nothing: a reload will lose the conversation.";
  $("welcome").hidden = false;
}, draft);
showThinking();
(globalThis.requestIdleCallback ?? setTimeout)(() => fetchMarkdown().catch(() => {}));
