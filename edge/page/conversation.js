// What a conversation looks like after each of its events. Knows nothing of pages: a test runs
// it in Node. Pieces of an attempt that was superseded are dropped, never joined to the next.

const SPOKEN = { text: "text", reasoning: "reasoning" };

export class Conversation {
  constructor() {
    this.turns = new Map(); // by batch: {batch, said, files, tasks, winner, status}
    this.byRun = new Map();
  }

  // Whether somebody is still to answer.
  get busy() {
    return [...this.turns.values()].some((turn) =>
      [...turn.tasks.values()].some((task) => task.status === "PROCESSING"),
    );
  }

  // Takes in one event: its name and its data as they were sent.
  hear(name, body) {
    if (name === "reset") return this.#restart(body.snapshot);
    const told = body.data ?? {};
    const take = this.#takers[name];
    if (take) take(told, body);
  }

  #takers = {
    "message.said": (told, { id }) => {
      const turn = this.#turn(told.batch || id); // what called a person has no batch
      const parts = told.message.content ?? [];
      turn.said = parts.filter((part) => part.type === "text").map((part) => part.text).join("\n");
      turn.files = parts.filter((part) => part.file).map((part) => `/files/${part.file.id}`);
    },
    "message.manual": ({ id, role, content, agent }) =>
      this.#remark(id, role, content, agent?.name || agent?.id),
    "batch.began": (told) => {
      for (const task of told.tasks) this.#begin(told.batch, task.task, task.model, task.run);
    },
    "task.moved": (told) => this.#begin(told.batch, told.task, told.model, told.run),
    "run.started": (told) => this.#attempt(told),
    "run.superseded": (told) => this.#attempt(told),
    "run.delta": (told) => this.#speak(told),
    "run.stopped": (told) => this.#end(told, "FAILED"),
    "task.finished": (told) => this.#end(told, told.status),
    "batch.finished": (told) => {
      const turn = this.#turn(told.batch);
      turn.status = told.status;
      turn.winner = told.winner ?? "";
    },
  };

  #restart(snapshot) {
    this.turns.clear();
    this.byRun.clear();
    for (const entry of snapshot?.messages ?? []) this.#recall(entry);
    for (const one of snapshot?.running ?? []) {
      const task = this.#begin(one.batch_id, one.task_id, one.model, one.run);
      Object.assign(task, { attempt: one.attempt, n: one.n });
      Object.assign(task, { text: one.text, reasoning: one.reasoning });
    }
  }

  #recall(entry) {
    const id = entry.message_id;
    if (id) return this.#remark(id, entry.role, entry.content, entry.name, entry.files);
    const turn = this.#turn(entry.batch_id);
    if (entry.role === "user") Object.assign(turn, { said: entry.content, files: entry.files });
    else if (!entry.is_loading) {
      const task = this.#task(turn, entry.task_id, entry.model);
      Object.assign(task, { text: entry.content, status: "SUCCESS" });
    }
  }

  // What people said to each other: an agent's words stand where a model's would.
  #remark(id, role, content, name, files = []) {
    const turn = this.#turn(id);
    if (role === "user") return Object.assign(turn, { said: content, files });
    const task = this.#task(turn, id, name ?? "");
    Object.assign(task, { text: content, status: "SUCCESS" });
  }

  #turn(batch) {
    if (!this.turns.has(batch)) {
      const turn = { batch, said: "", files: [], tasks: new Map(), winner: "", status: "" };
      this.turns.set(batch, turn);
    }
    return this.turns.get(batch);
  }

  #task(turn, id, model) {
    const task = { id, model, run: "", attempt: 0, n: 0, text: "", reasoning: "" };
    turn.tasks.set(id, Object.assign(task, { status: "PROCESSING", reason: "" }));
    return task;
  }

  #begin(batch, id, model, run) {
    const task = this.#task(this.#turn(batch), id, model);
    task.run = run;
    this.byRun.set(run, task);
    return task;
  }

  #attempt({ run, attempt }) {
    const task = this.byRun.get(run);
    if (task) Object.assign(task, { attempt, n: 0, text: "", reasoning: "" });
  }

  #speak({ run, attempt, n, kind = "text", text }) {
    const task = this.byRun.get(run);
    if (!task || attempt < task.attempt || (attempt === task.attempt && n <= task.n)) return;
    if (attempt > task.attempt) this.#attempt({ run, attempt });
    task.n = n;
    if (SPOKEN[kind]) task[SPOKEN[kind]] += text;
  }

  #end(told, status) {
    const task = this.turns.get(told.batch)?.tasks.get(told.task);
    if (!task || task.run !== told.run) return;
    Object.assign(task, { status, reason: told.reason ?? "" });
    this.byRun.delete(told.run);
  }
}
