// chat streamed in pieces, with counts; generate; an answer by a schema; list
// dependencies: ollama
import assert from "node:assert";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.env.AXPRESS_URL });
const messages = [{ role: "user", content: "Tell me a short story." }];

const parts = [];
for await (const part of await client.chat({ model: "default", messages, stream: true })) parts.push(part);
assert(parts.filter((part) => part.message.content).length > 3 && parts.at(-1).eval_count > 3);
assert((await client.generate({ model: "default", prompt: "Tell me a short story." })).response);

const format = { type: "object", properties: { city: { enum: ["Oslo", "Paris"] } }, required: ["city"] };
const answer = await client.chat({ model: "default", messages, format });
assert(["Oslo", "Paris"].includes(JSON.parse(answer.message.content).city));
assert((await client.list()).models.length === 1);
