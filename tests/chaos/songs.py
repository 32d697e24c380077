"""What must hold of jobs: one run each, one voice at a time, one result, silence after the end."""

from collections import Counter, defaultdict
from typing import Any

from tests.chaos.model import Expected, Mail

Json = dict[str, Any]
Rows = list[tuple[int, Json]]
ENDED = ("finished", "stopped")


def check_runs(
    jobs: Rows,
    songs: Rows,
    runs: dict[str, tuple[int, Json]],
    mail: list[Mail],
    expected: Expected,
) -> list[str]:
    """Everything that is wrong with the runs, in words."""
    results: dict[str, list[Mail]] = defaultdict(list)
    for one in mail:
        if run := one.body.get("runid"):
            results[run].append(one)
    said: dict[str, Rows] = defaultdict(list)
    for seq, body in songs:
        said[body["runid"]].append((seq, body))
    wrong = _check_jobs(jobs, runs, expected)
    for run, (worker, _, given) in expected.jobs.items():
        seq, record = runs.get(run, (0, {}))
        wrong += _check_end(run, seq, record, results.get(run, []), expected)
        if worker == "singer":
            wrong += _check_voice(run, given, seq, said.get(run, []), results.get(run, []))
    strangers = (runs.keys() | results.keys() | said.keys()) - expected.jobs.keys()
    return wrong + [f"run {run} was started by nobody" for run in strangers]


def _check_jobs(jobs: Rows, runs: dict[str, tuple[int, Json]], expected: Expected) -> list[str]:
    found = Counter(body["runid"] for _, body in jobs)
    wrong = [f"run {run} has {count} jobs" for run, count in found.items() if count > 1]
    wrong += [f"a job of run {run}, started by nobody" for run in found.keys() - expected.jobs]
    for run in expected.jobs.keys() - found.keys():
        # Stopped by a message that was applied in the same commit as the one that started it.
        if run not in expected.stopped:
            wrong.append(f"run {run} has no job")
    return wrong


def _check_end(
    run: str, seq: int, record: Json, results: list[Mail], expected: Expected
) -> list[str]:
    """One result at most, stored with the run's end; none after a stop."""
    state = record.get("state")
    wrong = []
    if state not in ENDED:
        wrong.append(f"run {run} is {state!r} in the end: {record}")
    if (run in expected.stopped) != (state == "stopped"):
        wrong.append(f"run {run} is {state!r}; stopped: {run in expected.stopped}")
    if len(results) > 1 or (not results and state == "finished"):
        wrong.append(f"run {run} is {state!r} and has {len(results)} results")
    for result in results:
        if state == "finished" and result.seq != seq + 1:
            wrong.append(f"run {run} ended at {seq}, its result is at {result.seq}")
        if state == "stopped" and result.seq > seq:
            wrong.append(f"run {run} was stopped at {seq}, its result is at {result.seq}")
    return wrong


def _check_voice(run: str, verses: int, end: int, said: Rows, results: list[Mail]) -> list[str]:
    """One attempt speaks at a time, none after the end; the last one said all of it."""
    song = _Song()
    for seq, body in said:
        if seq > end:
            song.wrong.append(f"{body['type']} at {seq}, after its end at {end}")
        song.hear(seq, body)
    whole = "".join(f"{verse} " for verse in range(verses))
    for result in results:
        if song.text[result.body["attempt"]] != whole:
            song.wrong.append(f"said {dict(song.text)}, expected {whole!r}")
    return [f"run {run}: {line}" for line in song.wrong]


class _Song:
    """What one run has said so far, by attempt."""

    def __init__(self) -> None:
        self.text: dict[int, str] = defaultdict(str)
        self.wrong: list[str] = []
        self._attempt = 0
        self._numbers: Counter[int] = Counter()

    def hear(self, seq: int, body: Json) -> None:
        """Take the next event of the run."""
        attempt = body["attempt"]
        if body["type"] != "run.delta":
            if attempt <= self._attempt:
                self.wrong.append(f"attempt {attempt} after attempt {self._attempt}")
            self._attempt = attempt
        elif attempt != self._attempt:
            self.wrong.append(f"attempt {attempt} speaks at {seq}, {self._attempt} holds it")
        else:
            self._add(attempt, body["number"], body["data"]["text"])

    def _add(self, attempt: int, number: int, text: str) -> None:
        """A number that is not new was said again, because its outcome was unknown."""
        if number > self._numbers[attempt] + 1:
            self.wrong.append(f"attempt {attempt} says {number} after {self._numbers[attempt]}")
        if number > self._numbers[attempt]:
            self._numbers[attempt] = number
            self.text[attempt] += text
