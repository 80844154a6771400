// What the server says it serves: models, the package's own sampling, whether it can think and see, and whether it is ready.

import { askJson } from "./api.js";
import { $, el } from "./dom.js";

export const served = {
  model: "default",
  emulated: false,
  context: 0, // tokens
  defaults: {}, // sampling of the package, by the names of request fields
  thinks: false,
  sees: false,
  imageSide: 0, // px that the model makes out, along the longer side
};

let status = "";
const waiting = new Set();
const listeners = new Set();

/** `call()` after anything of `served` became known. */
export const onServed = (call) => listeners.add(call);

/** Facts of the live stream, and what the server tells only when asked. */
export async function setServed(facts) {
  served.emulated = Boolean(facts.emulated);
  served.context = facts.context_length ?? served.context;
  const news = facts.status === "ready" && status !== "ready";
  status = facts.status;
  if (!mustWait()) release();
  if (facts.model && !$("models").children.length) served.model = facts.model;
  if (news) await learn().catch(() => {}); // a key may be wanted: it begins anew then
}

function release() {
  for (const go of waiting) go();
  waiting.clear();
}

/** Whether a message would have to wait for the model. */
export const mustWait = () => ["loading", "recovering", "hot"].includes(status);

/** Until the model can answer, or the signal aborts. */
export function untilReady(signal) {
  return new Promise((go) => {
    waiting.add(go);
    signal.addEventListener("abort", go);
  });
}

async function learn() {
  const names = (await askJson("/v1/models")).data.map(({ id }) => id);
  if (!names.includes(served.model)) served.model = names[0];
  showModels(names);
  const { parameters = "", capabilities = [], model_info: info = {} } = await askJson("/api/show", { model: served.model });
  served.thinks = capabilities.includes("thinking");
  served.sees = capabilities.includes("vision");
  served.imageSide = info[`${info["general.architecture"]}.vision.image_size`] ?? 0;
  const said = Object.fromEntries(parameters.split("\n").map((line) => line.split(/\s+/)));
  const { repeat_penalty: repetition_penalty, temperature, top_k, top_p, min_p } = said;
  served.defaults = { temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty: 0, frequency_penalty: 0 };
  for (const call of listeners) call();
}

/** The picker, where there is something to pick. */
function showModels(names) {
  const picker = $("models");
  picker.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  picker.value = served.model;
  picker.hidden = names.length < 2;
  $("model").hidden = names.length > 1;
}

export function startModels() {
  $("models").addEventListener("change", () => {
    served.model = $("models").value;
    learn().catch(() => {});
  });
}
