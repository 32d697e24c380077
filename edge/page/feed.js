// A feed of server-sent events read by fetch: unlike EventSource it can send a key, and it knows
// why it was refused. It resumes after the last id, for ever, until it is told to stop.

const SHORTEST = 500;
const LONGEST = 8000;

export class Refused extends Error {
  constructor(status, detail) {
    super(detail || `the server answered ${status}`);
    this.status = status;
  }
}

// Takes text in any pieces and gives whole events: {id, event, data}.
export class Parser {
  #rest = "";
  #event = { event: "message", data: [] };
  #id = "";

  push(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    return lines.map((line) => this.#take(line)).filter(Boolean);
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.#id = value;
    else if (name === "event") this.#event.event = value;
    else if (name === "data") this.#event.data.push(value);
    return null;
  }

  #dispatch() {
    const { event, data } = this.#event;
    this.#event = { event: "message", data: [] };
    if (!data.length) return this.#id ? { id: this.#id, event: "", data: "" } : null;
    return { id: this.#id, event, data: data.join("\n") };
  }
}

// Yields every event of a feed. Throws Refused for what trying again will not mend.
export async function* follow(url, headers, signal) {
  let cursor = "";
  let pause = SHORTEST;
  while (!signal.aborted) {
    try {
      for await (const event of once(url, headers, cursor, signal)) {
        cursor = event.id || cursor;
        pause = SHORTEST;
        if (event.event) yield event;
      }
    } catch (fault) {
      if (signal.aborted) return;
      if (fault instanceof Refused && fault.status < 500 && fault.status !== 429) throw fault;
    }
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, LONGEST);
  }
}

async function* once(url, headers, cursor, signal) {
  const resumed = cursor ? { "Last-Event-ID": cursor } : {};
  const answer = await fetch(url, {
    headers: { ...headers, ...resumed, Accept: "text/event-stream" },
    signal,
  });
  if (!answer.ok) throw new Refused(answer.status, await detailOf(answer));
  const parser = new Parser();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield* parser.push(value);
  }
}

// What an answer says went wrong, in whichever of our shapes.
export async function detailOf(answer) {
  try {
    const body = await answer.json();
    return body.detail || body.error?.message || body.title || "";
  } catch {
    return "";
  }
}
