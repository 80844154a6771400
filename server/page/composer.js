// The box to write in: text, files of text, pictures, thinking, keys.

import { currentChat, editLast, isAnswering, recount, send, settingsChanged, stop } from "./chat.js";
import { $, button, count, el } from "./dom.js";
import { onServed, served } from "./model.js";
import { hasCamera, pictureNode, readPicture, takePicture } from "./pictures.js";
import { say } from "./speech.js";
import { keepSettings } from "./store.js";

const MAX_BYTES = 1 << 20; // of a file: far more than a context holds

let files = []; // to be sent with the message: {name, text}
let pictures = []; // the same: {name, url}

/** What is being written, as a message, or null. */
export function draft() {
  const content = $("prompt").value.trim();
  return content || files.length || pictures.length ? { role: "user", content, files, pictures } : null;
}

export function startComposer() {
  const prompt = $("prompt");
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  prompt.addEventListener("keydown", pressed);
  prompt.addEventListener("input", () => {
    fit();
    recount();
  });
  $("stop").addEventListener("click", () => stop());
  startFiles(prompt);
  $("thinking").addEventListener("change", () => change({ thinking: $("thinking").value || undefined }));
  $("leave-out").addEventListener("change", () => change({ leave_out: $("leave-out").checked || undefined }));
  onServed(() => {
    showThinking();
    showEyes();
    recount(0);
  });
}

/** What can be added to a message: pictures only where the model sees. */
function showEyes() {
  $("attach").title = served.sees ? "Add pictures or files of text" : "Add files of text";
  $("attach").setAttribute("aria-label", $("attach").title);
  $("camera").hidden = !served.sees || !hasCamera();
}

/** The conversation's choice, where the model has one. */
export function showThinking() {
  $("thinking").parentElement.hidden = !served.thinks;
  $("thinking").value = currentChat().settings.thinking ?? "";
}

function change(settings) {
  const chat = currentChat();
  chat.settings = JSON.parse(JSON.stringify({ ...chat.settings, ...settings })); // without what is undefined
  if ("thinking" in settings) keepSettings(chat.settings);
  settingsChanged();
}

function pressed(event) {
  if (event.isComposing) return;
  if (event.key === "ArrowUp" && !$("prompt").value) {
    event.preventDefault();
    return editLast();
  }
  const newline = event.shiftKey || matchMedia("(pointer: coarse)").matches;
  if (event.key !== "Enter" || newline) return;
  event.preventDefault();
  submit();
}

function submit() {
  const message = draft();
  if (!message || isAnswering()) return;
  $("prompt").value = "";
  [files, pictures] = [[], []];
  showFiles();
  fit();
  send(message);
}

function fit() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

// ---- files ----

function startFiles(prompt) {
  const picker = $("file");
  $("attach").addEventListener("click", () => picker.click());
  $("camera").addEventListener("click", useCamera);
  picker.addEventListener("change", async () => {
    await take(picker.files);
    picker.value = "";
  });
  prompt.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
  const place = $("chat");
  place.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    place.classList.add("dropping");
  });
  place.addEventListener("dragleave", (event) => {
    if (!place.contains(event.relatedTarget)) place.classList.remove("dropping");
  });
  place.addEventListener("drop", (event) => {
    place.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
}

async function take(list) {
  const refused = [];
  for (const file of Array.from(list)) {
    const picture = served.sees && file.type.startsWith("image/") ? await readPicture(file) : null;
    const text = picture || file.size > MAX_BYTES ? null : await readText(file);
    if (picture) pictures.push(picture);
    else if (text === null) refused.push(file.name);
    else files.push({ name: file.name, text });
  }
  const what = served.sees ? "Pictures, and files of text of up to 1 MiB," : "Files of text of up to 1 MiB";
  took(refused.length ? `Not taken: ${refused.join(", ")}. ${what} can be sent.` : "");
}

async function useCamera() {
  try {
    const picture = await takePicture();
    if (picture) pictures.push(picture);
    took();
  } catch {
    took("No picture: this browser has no camera, or the page may not use it.");
  }
}

function took(problem = "") {
  showFiles(problem);
  say(problem || `${count(files.length + pictures.length)} files are sent with the message.`);
  $("prompt").focus();
  recount(0);
}

/** Null where it is no text. */
async function readText(file) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

function showFiles(problem = "") {
  const chips = [...pictures, ...files].map((file) =>
    el(
      "span",
      { className: "chip" },
      file.url && pictureNode(file, 40),
      file.name,
      button("×", `Remove ${file.name}`, () => {
        files = files.filter((other) => other !== file);
        pictures = pictures.filter((other) => other !== file);
        showFiles();
        recount(0);
      }),
    ),
  );
  for (const chip of chips) chip.lastElementChild.setAttribute("aria-label", chip.lastElementChild.title);
  $("files").replaceChildren(...chips, problem && el("span", { className: "error" }, problem));
  $("files").hidden = !chips.length && !problem;
}
