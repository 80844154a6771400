// Puts the rooms together.

import { getKey } from "./api.js";
import { currentChat, setServed, settingsChanged, startChat, switchChat } from "./chat.js";
import { $, el } from "./dom.js";
import { cardShown, startLive } from "./live.js";
import { showSettings, startChats, startSettings } from "./settings.js";

const buttons = document.querySelectorAll(".switch button");
let shown = "";

/** The model's name, and what must not be overlooked about it. */
function showFacts({ model, emulated, toy }) {
  setServed({ model, emulated });
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

startChat(() => {
  $("welcome").textContent = "This browser keeps nothing: a reload will lose the conversation.";
  $("welcome").hidden = false;
});
const watchAgain = startLive(showFacts, () => {
  if (!getKey()) showSettings(currentChat().settings, "key");
});
startSettings(currentChat, (newKey) => {
  settingsChanged();
  if (newKey) watchAgain();
});
startChats(currentChat, switchChat);
$("new-chat").addEventListener("click", () => switchChat());
for (const button of buttons) button.addEventListener("click", () => showView(button.dataset.view));
