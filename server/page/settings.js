// The dialogs: system prompt, sampling and key; earlier conversations.

import { getKey, setKey } from "./api.js";
import { $, el } from "./dom.js";
import { keepSettings, listChats, loadChat, removeChat } from "./store.js";

const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];

/** `chat()` gives the conversation whose settings are shown; `changed` is called after they, or the key, changed. */
export function startSettings(chat, changed) {
  const dialog = $("settings");
  const form = dialog.querySelector("form");
  $("open-settings").addEventListener("click", () => showSettings(chat().settings));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const settings = {};
    const system = form.elements.system.value.trim();
    if (system) settings.system = system;
    for (const name of NUMBERS) {
      const input = form.elements[name];
      if (input.value !== "") settings[name] = input.valueAsNumber;
    }
    chat().settings = settings;
    keepSettings(settings);
    const newKey = form.elements.key.value.trim() !== getKey();
    setKey(form.elements.key.value);
    dialog.close();
    changed(newKey);
  });
  form.querySelector("[data-do=clear]").addEventListener("click", () => {
    for (const name of ["system", ...NUMBERS]) form.elements[name].value = "";
  });
  closable(dialog);
}

/** Opens the dialog; `field`: where to begin. */
export function showSettings(settings, field = "system") {
  const { elements } = $("settings").querySelector("form");
  for (const name of ["system", ...NUMBERS]) elements[name].value = settings[name] ?? "";
  elements.key.value = getKey();
  $("settings").showModal();
  elements[field].focus();
}

/** The list of kept conversations. `open(chat)` shows one. */
export function startChats(current, open) {
  const dialog = $("chats");
  $("open-chats").addEventListener("click", () => {
    list(dialog, current, open);
    dialog.showModal();
  });
  closable(dialog);
}

function list(dialog, current, open) {
  const items = listChats().map(({ id, title, updated }) => {
    const here = id === current().id;
    const button = el("button", { type: "button", className: "title", textContent: title });
    if (here) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      dialog.close();
      const chat = here ? null : loadChat(id);
      if (chat) open(chat);
    });
    const remove = el(
      "button",
      { type: "button", className: "quiet", disabled: here, "aria-label": `Delete ${title}` },
      "Delete",
    );
    remove.addEventListener("click", () => {
      removeChat(id);
      list(dialog, current, open);
      dialog.querySelector("[data-do=close]").focus();
    });
    return el("li", {}, button, el("time", { dateTime: new Date(updated).toISOString() }, when(updated)), remove);
  });
  dialog.querySelector("ul").replaceChildren(...items);
  dialog.querySelector(".none").hidden = items.length > 0;
}

function when(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : date.toLocaleDateString();
}

function closable(dialog) {
  dialog.querySelector("[data-do=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
}
