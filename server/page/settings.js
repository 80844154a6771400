// The settings dialog: system prompt, sampling, presets, key.

import { getKey, setKey } from "./api.js";
import { ask, closable } from "./ask.js";
import { $, el } from "./dom.js";
import { served } from "./model.js";
import { NUMBERS } from "./request.js";
import { keepSettings, local, readItem, writeItem } from "./store.js";

const TEXTS = ["system", "stop"];
const PRESETS = "axpress.presets";
const GIVEN = {
  "As the package says": {},
  "Always the same": { temperature: 0 },
  Inventive: { temperature: 1, top_p: 0.95 },
};

const dialog = () => $("settings");
const fields = () => dialog().querySelector("form").elements;

/** `chat()` gives the conversation whose settings are shown; `changed` is called after they, or the key, changed. */
export function startSettings(chat, changed) {
  const form = dialog().querySelector("form");
  $("open-settings").addEventListener("click", () => showSettings(chat().settings));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { thinking, leave_out } = chat().settings; // chosen by the message box
    chat().settings = { ...read(), ...(thinking && { thinking }), ...(leave_out && { leave_out }) };
    keepSettings({ ...read(), ...(thinking && { thinking }) });
    const newKey = fields().key.value.trim() !== getKey();
    setKey(fields().key.value);
    dialog().close();
    changed(newKey);
  });
  form.querySelector("[data-do=clear]").addEventListener("click", () => fill({}));
  startPresets();
  closable(dialog());
}

/** Opens the dialog; `field`: where to begin. */
export function showSettings(settings, field = "system") {
  fill(settings);
  fields().key.value = getKey();
  for (const name of NUMBERS) {
    const usual = served.defaults[name];
    if (usual !== undefined) fields()[name].placeholder = usual;
  }
  listPresets();
  dialog().showModal();
  fields()[field].focus();
}

function fill(settings) {
  for (const name of [...TEXTS, ...NUMBERS]) fields()[name].value = settings[name] ?? "";
}

function read() {
  const settings = {};
  for (const name of TEXTS) if (fields()[name].value.trim()) settings[name] = fields()[name].value.trim();
  for (const name of NUMBERS) if (fields()[name].value !== "") settings[name] = fields()[name].valueAsNumber;
  return settings;
}

// ---- presets ----

const kept = () => readItem(local, PRESETS) ?? {};

function listPresets(chosen = "") {
  const names = [...Object.keys(GIVEN), ...Object.keys(kept())];
  $("presets").replaceChildren(
    el("option", { value: "" }, "Choose"),
    ...names.map((name) => el("option", { value: name }, name)),
  );
  $("presets").value = chosen;
  $("remove-preset").disabled = !(chosen in kept());
}

function startPresets() {
  $("presets").addEventListener("change", () => {
    const name = $("presets").value;
    if (name) fill(kept()[name] ?? { system: fields().system.value, ...GIVEN[name] });
    $("remove-preset").disabled = !(name in kept());
  });
  $("keep-preset").addEventListener("click", async () => {
    const name = await ask("Name of the preset", "Keep", "");
    if (!name || name in GIVEN) return;
    writeItem(local, PRESETS, { ...kept(), [name]: read() });
    listPresets(name);
  });
  $("remove-preset").addEventListener("click", async () => {
    const name = $("presets").value;
    if (!(await ask(`Delete the preset ${name}?`, "Delete"))) return;
    const { [name]: _, ...rest } = kept();
    writeItem(local, PRESETS, rest);
    listPresets();
  });
}
