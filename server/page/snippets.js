// The same request for a terminal and for Python. The key itself is never put in: both take it from the environment.

/** For a POSIX shell: between single quotes everything stands for itself, except a single quote. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function curl(body, origin, withKey) {
  return [
    `curl -N ${quoted(`${origin}/v1/chat/completions`)}`,
    `  -H 'Content-Type: application/json'`,
    ...(withKey ? [`  -H "Authorization: Bearer $AXPRESS_API_KEY"`] : []),
    `  --data-binary ${quoted(JSON.stringify(body))}`,
  ].join(" \\\n");
}

/** What OpenAI's client takes by name; all else goes into extra_body. */
const NAMED = new Set(["model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed"]);

export function python(body, origin, withKey) {
  const named = Object.entries(body).filter(
    ([name]) => NAMED.has(name) && name !== "stream" && name !== "stream_options",
  );
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !NAMED.has(name)));
  const lines = named.map(([name, value]) => `    ${name}=${literal(value, 1)},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${literal(extra, 1)},`);
  return [
    ...(withKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(`${origin}/v1`)}, ` +
      `api_key=${withKey ? 'os.environ["AXPRESS_API_KEY"]' : '"none"'})`,
    "stream = client.chat.completions.create(",
    ...lines,
    "    stream=True,",
    ")",
    "for chunk in stream:",
    "    if chunk.choices:",
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    "print()",
    "",
  ].join("\n");
}

/** A value as Python writes it. JSON's strings are Python's, too. */
function literal(value, depth = 0) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const flat = list ? !value.some((item) => typeof item === "object") : true;
  const parts = list
    ? value.map((item) => literal(item, depth + 1))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, depth + 1)}`);
  const [open, close] = list ? "[]" : "{}";
  if (flat) return open + parts.join(", ") + close;
  const pad = "    ".repeat(depth);
  return `${open}\n${parts.map((part) => `${pad}    ${part},\n`).join("")}${pad}${close}`;
}
