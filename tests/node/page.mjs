// Drives the modules of the chat page against a running edge, as the page does.
import assert from "node:assert/strict";

import { Conversation } from "./conversation.js";
import { Parser, Refused, follow } from "./feed.js";

const { BASE_URL, API_KEY } = process.env;
const headers = { Authorization: `Bearer ${API_KEY}` };

// -- text in any pieces gives the same events --------------------------------------------------

const raw = ':\nretry: 1\nid: 7\nevent: run.delta\ndata: {"a":\ndata: "ü"}\n\nid: 8\n\n: still here\n\n';
const whole = new Parser().push(raw);
for (let size = 1; size < raw.length; size++) {
  const parser = new Parser();
  const found = [];
  for (let at = 0; at < raw.length; at += size) found.push(...parser.push(raw.slice(at, at + size)));
  assert.deepEqual(found, whole);
}
assert.deepEqual(whole[0], { id: "7", event: "run.delta", data: '{"a":\n"ü"}' });

// -- nothing of an older attempt stays ---------------------------------------------------------

const told = new Conversation();
const hear = (name, data) => told.hear(name, { data });
const delta = (attempt, n, text) => hear("run.delta", { run: "r", attempt, n, text });
hear("batch.began", { batch: "b", tasks: [{ task: "b-1", model: "m", run: "r" }] });
hear("run.started", { run: "r", attempt: 1 });
delta(1, 1, "one ");
delta(1, 1, "one ");
delta(1, 2, "two");
hear("run.superseded", { run: "r", attempt: 2 });
delta(1, 3, " late");
delta(2, 1, "anew");
const task = told.turns.get("b").tasks.get("b-1");
assert.equal(task.text, "anew");
assert.equal(told.busy, true);
hear("task.finished", { batch: "b", task: "b-1", run: "r", model: "m", status: "SUCCESS" });
delta(2, 2, " too late");
assert.equal(task.text, "anew");
assert.equal(told.busy, false);

// -- people stand in the same list -------------------------------------------------------------

told.hear("message.said", { id: "7.1", data: { batch: "", message: { content: [{ type: "text", text: "help" }] } } });
hear("message.manual", { id: "m1", role: "agent", content: "I am here", agent: { id: "a", name: "Ann" } });
const people = { role: "agent", content: "hello", name: "Ann", message_id: "m2", batch_id: "" };
assert.equal(told.turns.get("7.1").said, "help");
assert.deepEqual([...told.turns.get("m1").tasks.values()].map((one) => [one.model, one.text]), [["Ann", "I am here"]]);
assert.equal(told.busy, false);
told.hear("reset", { snapshot: { messages: [people], running: [] } });
assert.equal(told.turns.get("m2").tasks.get("m2").text, "hello");

// -- a real conversation -----------------------------------------------------------------------

const form = new FormData();
form.set("prompt", "one two three");
form.set("model", "echo, echo-two");
const asked = { method: "POST", headers, body: form };
const opened = await (await fetch(`${BASE_URL}/v1/chat/completions`, asked)).json();
const url = `${BASE_URL}/v1/conversations/${opened.conversation_id}/events`;
const seen = new Conversation();
const over = new AbortController();
for await (const { event, data } of follow(url, headers, over.signal)) {
  seen.hear(event, JSON.parse(data));
  if (seen.turns.get(opened.batch_id)?.tasks.size && !seen.busy) break;
}
over.abort();
const turn = seen.turns.get(opened.batch_id);
assert.equal(turn.said, "one two three");
assert.deepEqual([...turn.tasks.values()].map((one) => one.text), ["one two three", "one two three"]);

const nowhere = `${BASE_URL}/v1/conversations/nobody/events`;
const strange = follow(nowhere, headers, new AbortController().signal);
await assert.rejects(strange.next(), (fault) => fault instanceof Refused && fault.status === 404);
console.log("all is well");
