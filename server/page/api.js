// Everything that goes to the server: the key, errors in the server's own words, streams.

const KEY = "axpress.key";
let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // no storage: the key lives as long as the page
}

export const getKey = () => key;

/** Kept for this tab only. */
export function setKey(value) {
  key = value.trim();
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // as above
  }
}

/** What went wrong, as a sentence for a person. `status` 0: the server did not answer at all. */
export class ApiError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function request(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      signal,
      body: body && JSON.stringify(body),
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { status, statusText } = response;
  try {
    const { message, code } = (await response.json()).error;
    if (typeof message === "string" && message) return new ApiError(message, status, code ?? "");
  } catch {
    // not one of ours: a proxy's, say
  }
  return new ApiError(`The server answered ${status} ${statusText}`.trim() + ".", status);
}

/** The JSON of an answer: a POST where there is a body. Throws ApiError. */
export async function askJson(path, body = null, signal = undefined) {
  return (await request(path, body, signal)).json();
}

/** GET /health, which is told with 503, too. Null where there is no answer. */
export async function askHealth() {
  try {
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    return await (await fetch("/health", { headers, cache: "no-store" })).json();
  } catch {
    return null;
  }
}

/** The data of a stream's server-sent events. */
async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length) yield data.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The connection to the server broke.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The chunks of a streamed chat completion. Throws ApiError, also where the stream ends too early. */
export async function* streamChat(body, signal) {
  for await (const data of events(await request("/v1/chat/completions", body, signal), signal)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 500);
    yield chunk;
  }
  throw new ApiError("The connection to the server broke in the middle of the answer.");
}

/** What the card is doing, as long as the server tells. */
export async function* streamLive(signal) {
  for await (const data of events(await request("/live/stream", null, signal), signal)) yield JSON.parse(data);
}
