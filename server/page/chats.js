// The list of kept conversations: search, open, rename, export, delete, import.

import { ask, closable } from "./ask.js";
import { currentChat, switchChat } from "./chat.js";
import { $, button, el, many } from "./dom.js";
import { say } from "./speech.js";
import { loadChat, removeChat, saveChat, searchChats } from "./store.js";
import { exportAll, exportJson, exportMarkdown, importFile } from "./transfer.js";

const dialog = () => $("chats");

export function startChats() {
  $("open-chats").addEventListener("click", showChats);
  $("search").addEventListener("input", list);
  $("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    dialog().querySelector(".title")?.click();
  });
  $("export-all").addEventListener("click", exportAll);
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", async () => {
    const picker = $("import-file");
    await take(Array.from(picker.files));
    picker.value = "";
  });
  closable(dialog());
}

export async function showChats() {
  if (dialog().open) return;
  $("search").value = "";
  tell("");
  await list();
  dialog().showModal();
  $("search").focus();
}

async function take(files) {
  let count = 0;
  try {
    for (const file of files) count += await importFile(file);
    tell(`${many(count, "conversation")} read in.`);
  } catch (error) {
    tell(error.message);
  }
  list();
}

function tell(text) {
  $("chats-said").textContent = text;
}

let asked = 0;

async function list() {
  const mine = ++asked;
  const found = await searchChats($("search").value);
  if (mine !== asked) return; // more was typed
  dialog()
    .querySelector("ul")
    .replaceChildren(...found.map(item));
  const none = dialog().querySelector(".none");
  none.hidden = found.length > 0;
  none.textContent = $("search").value ? "None has these words." : "None yet.";
}

function item({ id, title, updated }) {
  const here = id === currentChat().id;
  const open = el("button", { type: "button", className: "title", textContent: title });
  if (here) open.setAttribute("aria-current", "true");
  open.addEventListener("click", async () => {
    dialog().close();
    const chat = here ? null : await loadChat(id);
    if (chat) switchChat(chat);
  });
  const time = el("time", { dateTime: new Date(updated).toISOString() }, when(updated));
  const named = (label, act) => {
    const made = button(label, "", act);
    made.setAttribute("aria-label", `${label} ${title}`);
    return made;
  };
  const whole = async () => (here ? currentChat() : loadChat(id));
  const doings = el(
    "div",
    { className: "doings" },
    named("Rename", () => rename(whole, title)),
    named("JSON", async () => exportJson([await whole()])),
    named("Markdown", async () => exportMarkdown(await whole())),
    named("Delete", () => remove(id, title, here)),
  );
  return el("li", {}, open, time, doings);
}

async function rename(whole, title) {
  const name = await ask("Name of the conversation", "Rename", title);
  if (!name) return;
  const chat = await whole();
  chat.title = name.slice(0, 200);
  await saveChat(chat, false);
  await list();
}

async function remove(id, title, here) {
  if (!(await ask(`Delete the conversation “${title}”? It cannot be brought back.`, "Delete"))) return;
  if (here) {
    currentChat().nodes = {}; // so that leaving it does not keep it again
    currentChat().leaf = null;
    switchChat();
  }
  await removeChat(id);
  say("Deleted.");
  await list();
  $("search").focus();
}

function when(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : date.toLocaleDateString();
}
