// Shows /openapi.json to people. Nothing is asked of anybody else.

import { getKey, setKey } from "./api.js";
import { $, copyButton, el } from "./dom.js";

const SAMPLES = { name: "default", deployment: "gpt-4o" };
const MOST_SHOWN = 20_000; // characters of an answer

let api = {};

const code = (text) => el("code", {}, text);

/** The schema that a reference means, and its name. */
function resolve(schema) {
  const name = schema.$ref?.split("/").pop();
  return name ? { schema: api.components.schemas[name], name } : { schema, name: "" };
}

/** The kinds of value that a schema allows, each by itself; null, which means "not given", left out unless it is all
 *  there is. */
function kinds(schema) {
  const all = schema.anyOf ?? schema.oneOf ?? [schema];
  const some = all.filter((one) => one.type !== "null");
  return (some.length ? some : all).flatMap((one) => (one === schema ? [one] : kinds(one)));
}

function bounds(schema, low, high, what) {
  const [min, max] = [schema[low], schema[high]];
  if (min === undefined && max === undefined) return "";
  const range = min === max ? min : `${min} to ${max}`;
  return ` (${min === undefined ? "at most " + max : max === undefined ? "at least " + min : range}${what})`;
}

/** Bounds beyond what a double counts are those of 64 bits, which nobody meets. */
const limit = (schema, key, word) => (Math.abs(schema[key]) < 2 ** 53 ? `${word} ${schema[key]}` : "");

/** A schema in words. */
function words(schema) {
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(", ");
  const { schema: meant, name } = resolve(schema);
  if (name && meant.type === "object") return name;
  if (name) return words(meant);
  const some = kinds(schema);
  if (some.length > 1) return some.map(words).join(" or ");
  if (some[0] !== schema) return words(some[0]);
  if (schema.type === "array") {
    return (
      `list${bounds(schema, "minItems", "maxItems", "")}` +
      (schema.items && Object.keys(schema.items).length ? ` of ${words(schema.items)}` : "")
    );
  }
  if (schema.type === "string") return `string${bounds(schema, "minLength", "maxLength", " characters")}`;
  if (schema.type === "integer" || schema.type === "number") {
    return [
      schema.type,
      limit(schema, "exclusiveMinimum", "above") || limit(schema, "minimum", "from"),
      limit(schema, "exclusiveMaximum", "below") || limit(schema, "maximum", "to"),
    ]
      .filter(Boolean)
      .join(" ");
  }
  return schema.type ?? "any JSON";
}

/** The objects with fields of their own that a schema allows. */
function objects(schema) {
  return kinds(schema).flatMap((one) => {
    const { schema: meant, name } = resolve(one);
    if (meant.anyOf || meant.oneOf) return objects(meant);
    if (meant.items) return objects(meant.items);
    return meant.properties ? [{ schema: meant, name }] : [];
  });
}

/** A part that is filled when it is opened first, so that schemas may go in circles. */
function folded(label, className, fill) {
  const details = el("details", { className }, el("summary", {}, ...label));
  details.addEventListener("toggle", () => details.children.length === 1 && details.append(fill()));
  return details;
}

/** Text in which `names` stand between backticks. */
const prose = (text) => (text ?? "").split("`").map((part, i) => (i % 2 ? code(part) : part));

/** Folded tables of the objects that a schema allows. */
const insides = (schema, name) =>
  objects(schema).map((one) => folded([`Fields of ${one.name || name}`], "", () => fieldTable(one.schema)));

function fieldRows(name, schema, needed) {
  const mark = needed ? el("span", { className: "needed" }, "required") : null;
  const row = el(
    "tr",
    {},
    el("th", { scope: "row" }, code(name), mark),
    el("td", {}, words(schema)),
    el("td", {}, ...prose(schema.description)),
  );
  const inner = insides(schema, name);
  return inner.length ? [row, el("tr", { className: "inner" }, el("td", { colSpan: 3 }, ...inner))] : [row];
}

function fieldTable(schema) {
  const needed = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties); // common ones first
  const rows = fields.flatMap(([name, one]) => fieldRows(name, one, needed.has(name)));
  const head = el("tr", {}, ...["Field", "Takes", "Remarks"].map((text) => el("th", { scope: "col" }, text)));
  return el("table", { className: "fields" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

const titled = (title, ...nodes) => [el("h3", {}, title), ...nodes];

function requestPart(media) {
  const { schema } = resolve(media.schema);
  const parts = titled("Request", fieldTable(schema));
  const refused = Object.entries(schema["x-refused"] ?? {});
  if (refused.length) {
    const list = refused.flatMap(([name], i) => [i ? ", " : "", code(name)]);
    parts.push(
      el(
        "p",
        { className: "remark" },
        "Known and refused by name, since this server has no such thing: ",
        ...list,
        ".",
      ),
    );
  }
  return parts;
}

/** A path that can be asked for: its parameters have values. */
const sample = (path) => path.replace(/{(\w+)}/g, (_, name) => SAMPLES[name] ?? name);

function curl(path, method, body) {
  const url = location.origin + path;
  const verb = { get: "", post: "", head: "-I " }[method] ?? `-X ${method.toUpperCase()} `;
  if (body === undefined) return `curl -s ${verb}'${url}'`;
  return `curl -s ${verb}'${url}' -H 'Content-Type: application/json' -d '${body.replaceAll("'", "'\\''")}'`;
}

/** Asks, and gives what comes back to `show`, piece by piece. */
async function ask(path, method, body, signal, show) {
  const headers = getKey() ? { authorization: `Bearer ${getKey()}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, { method: method.toUpperCase(), headers, body, signal, cache: "no-store" });
  show(`${response.status} ${response.statusText}\n\n`);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader.read()) show(piece.value);
}

/** A button that asks and, while the answer comes, stops it. */
function sendButton(path, method, text, shown) {
  const button = el("button", { type: "button", textContent: "Send" });
  let asking = null;
  button.addEventListener("click", async () => {
    if (asking) return asking.abort();
    asking = new AbortController();
    button.textContent = "Stop";
    shown.hidden = false;
    shown.textContent = "";
    const show = (piece) => {
      shown.textContent += piece;
      if (shown.textContent.length > MOST_SHOWN) asking.abort();
    };
    try {
      await ask(path, method, text(), asking.signal, show);
    } catch (error) {
      shown.textContent += asking.signal.aborted ? "\n(stopped)" : `The server does not answer: ${error.message}`;
    }
    asking = null;
    button.textContent = "Send";
  });
  return button;
}

/** An example to copy, to change and to send. */
function examplePart(template, method, example) {
  const path = sample(template);
  const body =
    example && el("textarea", { rows: 8, spellcheck: false, "aria-label": `Body for ${path}`, className: "body" });
  if (body) body.value = JSON.stringify(example, null, 2);
  const text = () => body?.value;
  const shown = el("pre", { tabIndex: 0, hidden: true, "aria-label": `Answer of ${path}` });
  const command = el("pre", { tabIndex: 0 }, code(curl(path, method, example && JSON.stringify(example))));
  const copy = copyButton("Copy as curl", "Copy this command", () => curl(path, method, text()));
  const head = el("div", { className: "code-head" }, el("span", {}, "shell"), copy);
  const send = sendButton(path, method, text, shown);
  const parts = [el("div", { className: "code" }, head, command), ...(body ? [body] : []), el("p", {}, send), shown];
  return titled("Try it", ...parts);
}

function responseRow(status, response) {
  const shown = Object.entries(response.content ?? {}).map(([kind, media]) => {
    const schema = media["x-item-schema"] ?? media.schema;
    return el("div", {}, code(kind), " ", ...prose(media["x-stream"]), ...insides(schema, kind));
  });
  return el("tr", {}, el("th", { scope: "row" }, status), el("td", {}, response.description), el("td", {}, ...shown));
}

function responsePart(responses) {
  const head = el("tr", {}, ...["Status", "Means", "Holds"].map((text) => el("th", { scope: "col" }, text)));
  const rows = Object.entries(responses).map(([status, one]) => responseRow(status, one));
  return titled("Answers", el("table", { className: "fields" }, el("thead", {}, head), el("tbody", {}, ...rows)));
}

function operationPart(path, method, operation) {
  const media = operation.requestBody?.content["application/json"];
  const label = [
    el("span", { className: "method" }, method.toUpperCase()),
    code(path),
    el("span", {}, operation.summary),
  ];
  const details = folded(label, "operation", () => {
    const open =
      operation.security.length === 0
        ? "Needs no API key."
        : "Where the server has API keys: as Authorization: Bearer, api-key or x-api-key.";
    const parameters = (operation.parameters ?? []).flatMap((one) =>
      fieldRows(one.name, { ...one.schema, description: one.description }, one.required),
    );
    return el(
      "div",
      { className: "inside" },
      ...(operation.description ? [el("p", {}, ...prose(operation.description))] : []),
      el("p", { className: "remark" }, open),
      ...(parameters.length
        ? titled("Parameters", el("table", { className: "fields" }, el("tbody", {}, ...parameters)))
        : []),
      ...(path.startsWith("/page/") ? [] : examplePart(path, method, media?.example)),
      ...(media ? requestPart(media) : []),
      ...responsePart(operation.responses),
    );
  });
  details.id = operation.operationId;
  const fields = media ? Object.keys(resolve(media.schema).schema.properties ?? {}) : [];
  details.dataset.words = [path, method, operation.summary, ...fields].join(" ").toLowerCase();
  return details;
}

/** Shows only the operations in whose path, summary or fields all words stand. */
function find() {
  const wanted = $("find").value.toLowerCase().split(/\s+/);
  for (const one of document.querySelectorAll(".operation")) {
    one.hidden = !wanted.every((word) => one.dataset.words.includes(word));
  }
}

function showAll() {
  $("version").textContent = `version ${api.info.version}, OpenAPI ${api.openapi}`;
  $("about").textContent = api.info.description;
  // what HEAD does is said in the description
  const shown = (methods) => Object.entries(methods).filter(([method]) => method !== "head" || !methods.get);
  const all = Object.entries(api.paths).flatMap(([path, methods]) =>
    shown(methods).map(([method, one]) => ({ path, method, one })),
  );
  for (const { name } of api.tags) {
    const here = all.filter(({ one }) => one.tags[0] === name && one.summary);
    const links = here.map(({ path, method, one }) =>
      el("li", {}, el("a", { href: `#${one.operationId}` }, `${method.toUpperCase()} ${path}`)),
    );
    $("contents").append(el("h2", {}, name), el("ul", {}, ...links));
    $("operations").append(
      el("h2", {}, name),
      ...here.map(({ path, method, one }) => operationPart(path, method, one)),
    );
  }
}

/** Opens what the address names. */
function openNamed() {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found?.matches(".operation")) {
    found.open = true;
    found.scrollIntoView();
  }
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`status ${response.status}`);
  api = await response.json();
  showAll();
  openNamed();
  $("find").addEventListener("input", find);
  $("key").value = getKey();
  $("key").addEventListener("input", () => setKey($("key").value));
  window.addEventListener("hashchange", openNamed);
} catch (error) {
  $("about").className = "bad";
  $("about").textContent = `/openapi.json could not be read: ${error.message}`;
}
