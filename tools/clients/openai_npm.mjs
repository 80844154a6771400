// chat streamed in pieces, with usage; runTools calls a function; a parsed form
// dependencies: openai
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.AXPRESS_URL + "/v1", apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Tell me a short story." }];

const pieces = [];
let usage = null;
const asked = { model: "default", messages, max_tokens: 40, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(asked)) {
  if (chunk.choices[0]?.delta?.content) pieces.push(chunk.choices[0].delta.content);
  usage = chunk.usage ?? usage;
}
assert(pieces.length > 3 && usage.completion_tokens > 3);

const schema = { type: "object", properties: { city: { enum: ["Oslo", "Paris"] } }, required: ["city"] };
const cities = [];
const weather = { name: "weather", parameters: schema, parse: JSON.parse, function: ({ city }) => cities.push(city) };
const tool_choice = { type: "function", function: { name: "weather" } };
const tools = [{ type: "function", function: weather }];
await client.chat.completions.runTools({ model: "default", messages, tools, tool_choice }).done();
assert(["Oslo", "Paris"].includes(cities[0]), cities);

const response_format = { type: "json_schema", json_schema: { name: "weather", schema, strict: true } };
const parsed = await client.chat.completions.parse({ model: "default", messages, response_format });
assert(["Oslo", "Paris"].includes(parsed.choices[0].message.parsed.city));
