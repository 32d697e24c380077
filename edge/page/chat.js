// The page: what a conversation knows, drawn; what a person types, sent. All text is set as text,
// so nothing that a person or a model says can become markup.

import { Conversation } from "./conversation.js";
import { Refused, detailOf, follow } from "./feed.js";

const KEY = "callboard-key";
const $ = (id) => document.getElementById(id);
const make = (tag, className = "", text = "") =>
  Object.assign(document.createElement(tag), { className, textContent: text });

let conversation = new Conversation();
let current = "";
let following = new AbortController();
let drawing = false;
const drawn = new Map(); // by batch: its element, and those of its tasks

const headers = () => {
  const key = $("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
};
const notice = (text) => ($("notice").textContent = text);

async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (!answer.ok) throw new Refused(answer.status, await detailOf(answer));
  return answer.json();
}

// -- drawing ---------------------------------------------------------------------------------

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const box = $("turns");
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    for (const turn of conversation.turns.values()) drawTurn(turn);
    $("stop").hidden = !conversation.busy;
    if (atEnd) box.scrollTop = box.scrollHeight;
  });
}

function drawTurn(turn) {
  let place = drawn.get(turn.batch);
  if (!place) {
    const element = make("article", "turn");
    place = { element, said: make("p", "said"), files: make("p"), answers: make("div", "answers") };
    place.tasks = new Map();
    element.append(place.said, place.files, place.answers);
    $("turns").append(element);
    drawn.set(turn.batch, place);
  }
  set(place.said, turn.said);
  set(place.files, turn.files.length ? `${turn.files.length} file(s)` : "");
  for (const task of turn.tasks.values()) drawTask(place, task, turn.winner === task.id);
}

function drawTask(place, task, winner) {
  let parts = place.tasks.get(task.id);
  if (!parts) {
    const element = make("section", "answer");
    const heading = make("h2");
    parts = { element, model: make("span"), status: make("span"), thought: make("details") };
    parts.thinking = make("div");
    parts.text = make("p");
    heading.append(parts.model, parts.status);
    parts.thought.append(make("summary", "", "reasoning"), parts.thinking);
    element.append(heading, parts.thought, parts.text);
    place.answers.append(element);
    place.tasks.set(task.id, parts);
  }
  parts.element.dataset.status = task.status;
  parts.element.classList.toggle("winner", winner);
  parts.thought.hidden = !task.reasoning;
  set(parts.model, task.model);
  set(parts.status, task.status === "PROCESSING" ? "…" : task.status.toLowerCase());
  set(parts.thinking, task.reasoning);
  set(parts.text, task.status === "FAILED" ? [task.text, task.reason].filter(Boolean).join("\n") : task.text);
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// -- a conversation ---------------------------------------------------------------------------

function open(id) {
  if (id === current) return;
  following.abort();
  following = new AbortController();
  current = id;
  conversation = new Conversation();
  drawn.clear();
  $("turns").replaceChildren();
  notice("");
  draw();
  if (id) hear(id, following.signal);
  mark();
}

async function hear(id, signal) {
  const url = `/v1/conversations/${encodeURIComponent(id)}/events`;
  try {
    for await (const { event, data } of follow(url, headers(), signal)) {
      if (signal.aborted) return;
      if (event === "bye" || event === "unreadable") continue;
      if (event === "reset") {
        drawn.clear();
        $("turns").replaceChildren();
      }
      conversation.hear(event, JSON.parse(data));
      draw();
    }
  } catch (fault) {
    if (!signal.aborted) notice(fault.message);
  }
}

async function send(event) {
  event.preventDefault();
  const models = [...document.querySelectorAll("#models input:checked")].map((box) => box.value);
  if (!models.length) return notice("choose who is to answer");
  const form = new FormData();
  form.set("prompt", $("prompt").value);
  form.set("model", models.join(","));
  form.set("policy", $("policy").value);
  if (current) form.set("conversation_id", current);
  for (const file of $("files").files) form.append("files", file);
  $("send").disabled = true;
  try {
    const headers = { "Idempotency-Key": crypto.randomUUID?.() ?? `${Math.random()}`.slice(2) };
    const opened = await call("/v1/chat/completions", { method: "POST", body: form, headers });
    $("prompt").value = "";
    $("files").value = "";
    notice("");
    location.hash = opened.conversation_id;
    open(opened.conversation_id);
    list();
  } catch (fault) {
    notice(fault.message);
  } finally {
    $("send").disabled = false;
  }
}

async function stop() {
  try {
    const path = `/v1/conversations/${encodeURIComponent(current)}/abort`;
    const headers = { "Content-Type": "application/json" };
    await call(path, { method: "POST", body: '{"reason":"stopped on the page"}', headers });
  } catch (fault) {
    notice(fault.message);
  }
}

// -- the lists beside it ------------------------------------------------------------------------

async function list() {
  try {
    const { conversations } = await call("/v1/conversations?limit=20");
    $("conversations").replaceChildren(
      ...conversations.map(({ conversation_id: id, title }) =>
        Object.assign(make("a", "", title || id), { href: `#${id}` }),
      ),
    );
    mark();
  } catch (fault) {
    notice(fault.message);
  }
}

function mark() {
  for (const link of $("conversations").children) {
    if (link.hash === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function offer() {
  try {
    const { data } = await call("/v1/models");
    const boxes = data.map(({ id }, index) => {
      const box = Object.assign(make("input"), { type: "checkbox", value: id, checked: index < 2 });
      const label = make("label");
      label.append(box, ` ${id}`);
      return label;
    });
    $("models").replaceChildren($("models").firstElementChild, ...boxes);
  } catch (fault) {
    notice(fault.message);
  }
}

$("key").value = sessionStorage.getItem(KEY) ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem(KEY, $("key").value.trim());
  const again = current;
  current = "";
  offer();
  list();
  open(again);
});
$("ask").addEventListener("submit", send);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", () => (location.hash = ""));
window.addEventListener("hashchange", () => open(location.hash.slice(1)));

offer();
list();
open(location.hash.slice(1));
