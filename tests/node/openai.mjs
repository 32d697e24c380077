// What the official Node SDK of OpenAI sees of an edge, told as one JSON object on stdout.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY });
const model = process.env.MODEL;
const user = (text) => [{ role: "user", content: text }];
const complete = (text, more = {}) =>
  client.chat.completions.create({ model, messages: user(text), ...more });
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];

async function listed() {
  const found = [];
  for await (const each of client.models.list()) found.push(each.id);
  return [found.includes(model), (await client.models.retrieve(model)).id];
}

async function whole() {
  const { data, request_id } = await complete("hello world").withResponse();
  const [choice] = data.choices;
  return [choice.message.content, choice.finish_reason, data.usage.total_tokens, !!request_id];
}

async function streamed() {
  const chunks = [];
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await complete("one two", options)) chunks.push(chunk);
  const text = chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
  return [text, chunks[0].choices[0].delta.role, chunks.at(-1).usage.total_tokens];
}

async function helped() {
  const stream = client.chat.completions.stream({ model, messages: user("call"), tools });
  const final = await stream.finalChatCompletion();
  const [choice] = final.choices;
  return [choice.finish_reason, choice.message.tool_calls.map((c) => c.function.arguments)];
}

async function called() {
  const made = await complete("call", { tools });
  const message = made.choices[0].message;
  const results = message.tool_calls.map((call) => ({
    role: "tool",
    tool_call_id: call.id,
    content: "sunny",
  }));
  const messages = [...user("call"), message, ...results, ...user("thanks")];
  const next = await client.chat.completions.create({ model, messages, tools });
  return [message.content, next.choices[0].message.content];
}

async function seen() {
  const image = `data:image/png;base64,${process.env.PNG}`;
  const content = [
    { type: "text", text: "see" },
    { type: "image_url", image_url: { url: image } },
  ];
  const messages = [{ role: "user", content }];
  const made = await client.chat.completions.create({ model, messages });
  return made.choices[0].message.content;
}

async function failing(act) {
  try {
    await act();
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.code ?? null, error.param ?? null];
  }
  return ["nothing was thrown"];
}

async function broken() {
  let text = "";
  const thrown = await failing(async () => {
    const messages = user("half truncated");
    const stream = await client.chat.completions.create({ model: "broken", messages, stream: true });
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  });
  return [text, ...thrown];
}

const wrong = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "sk-wrong" });
const results = {
  listed: await listed(),
  whole: await whole(),
  streamed: await streamed(),
  helped: await helped(),
  called: await called(),
  seen: await seen(),
  broken: await broken(),
  not_found: await failing(() => complete("hi", { model: "nothing" })),
  bad: await failing(() => complete("hi", { temperature: 9 })),
  unauthorized: await failing(() => wrong.models.list()),
  quota: await failing(() => complete("fail quota_exhausted", { model: "quota" })),
  taken: await failing(() =>
    client.chat.completions.create(
      { model, messages: user("hi") },
      { headers: { "X-Conversation-Id": "taken" } },
    ),
  ),
};
console.log(JSON.stringify(results));
