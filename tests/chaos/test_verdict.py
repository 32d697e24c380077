"""The judge of the chaos test: it finds nothing in an honest log, and every forgery of one."""

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from runtime.testing import Kit, running
from tests.chaos.follower import Follower
from tests.chaos.history import History
from tests.chaos.ledger import Ledger, Singer, Squarer
from tests.chaos.load import Amount, Load
from tests.chaos.model import Mail
from tests.chaos.quiet import until_quiet
from tests.chaos.verdict import Log, judge, read_log

ENTRIES = 700
SECONDS = 1.5


@dataclass
class Case:
    """What the judge is shown."""

    log: Log
    history: History
    follower: Follower

    @property
    def wrong(self) -> list[str]:
        """What the judge says."""
        return judge(self.log, self.history, [self.follower])

    def busiest(self) -> str:
        """The account that told most."""
        return max(self.log.events, key=lambda key: len(self.log.events[key]))

    def last(self, kind: str) -> int:
        """Where the last message of a kind is among the mail."""
        kinds = [mail.body["data"]["type"] for mail in self.log.mail]
        return len(kinds) - 1 - kinds[::-1].index(kind)


def lose_an_entry(case: Case) -> None:
    del case.log.mail[case.last("ledger.enter")]


def store_an_entry_twice(case: Case) -> None:
    mail = case.log.mail[case.last("ledger.enter")]
    case.log.mail.append(replace(mail, seq=case.log.sequences + 1))


def store_an_entry_elsewhere(case: Case) -> None:
    place = case.last("ledger.enter")
    case.log.mail[place] = replace(case.log.mail[place], seq=case.log.sequences + 1)


def store_a_request_again_at_once(case: Case) -> None:
    mail = case.log.mail[case.last("ledger.enter")]
    case.history.operations[mail.body["id"]].how = "ask"
    case.log.mail.append(replace(mail, seq=case.log.sequences + 1, at=mail.at + 5))


def lose_a_transfer(case: Case) -> None:
    del case.log.mail[case.last("ledger.transfer")]


def store_a_transfer_twice(case: Case) -> None:
    mail = case.log.mail[case.last("ledger.transfer")]
    case.log.mail.append(replace(mail, seq=case.log.sequences + 1))


def let_a_reminder_count_twice(case: Case) -> None:
    state = case.log.records[max(case.log.records, key=lambda k: case.log.records[k]["done"])]
    state["data"]["ticks"] = state["data"].get("ticks", 0) + 1


def lose_a_reminder(case: Case) -> None:
    del case.log.mail[case.last("ledger.tick")]


def leave_a_reminder(case: Case) -> None:
    case.log.timers.append("timer.ledger.account-20.tick")


def lose_an_event(case: Case) -> None:
    del case.log.events[case.busiest()][3]


def tell_an_event_twice(case: Case) -> None:
    told = case.log.events[case.busiest()]
    told.insert(3, told[3])


def swap_two_events(case: Case) -> None:
    told = case.log.events[case.busiest()]
    told[2], told[3] = told[3], told[2]


def hear_an_event_too_few(case: Case) -> None:
    del next(iter(case.follower.transcripts.values()))[-1]


def hear_an_event_twice(case: Case) -> None:
    heard = next(iter(case.follower.transcripts.values()))
    heard.append(heard[-1])


def hear_something_else(case: Case) -> None:
    heard = next(iter(case.follower.transcripts.values()))
    heard[0] = (heard[0][0], heard[0][1] + 1)


def change_a_balance(case: Case) -> None:
    next(iter(case.log.records.values()))["data"]["balance"] += 1


def lag_behind(case: Case) -> None:
    next(iter(case.log.records.values()))["done"] -= 1


def lose_a_job(case: Case) -> None:
    del case.log.jobs[0]


def start_a_job_twice(case: Case) -> None:
    case.log.jobs.append(case.log.jobs[0])


def lose_a_result(case: Case) -> None:
    del case.log.mail[case.last("ledger.squared")]


def bring_a_result_twice(case: Case) -> None:
    mail = case.log.mail[case.last("ledger.sung")]
    case.log.mail.append(Mail(case.log.sequences + 1, mail.body))


def leave_a_run_open(case: Case) -> None:
    next(iter(case.log.runs.values()))[1]["state"] = "claimed"


def speak_after_the_end(case: Case) -> None:
    _, body = case.log.songs[-1]
    case.log.songs.append((case.log.sequences + 1, body))


def speak_while_another_holds_the_run(case: Case) -> None:
    for place, (seq, body) in enumerate(case.log.songs):
        if body["type"] == "run.delta":
            case.log.songs[place] = (seq, {**body, "attempt": 2})
            return


def leave_out_a_word(case: Case) -> None:
    went_on = {body["runid"] for _, body in case.log.songs if body.get("number") == 2}
    for place, (_, body) in enumerate(case.log.songs):
        if body["runid"] in went_on and body.get("number") == 1:
            del case.log.songs[place]
            return


def bury_somebody(case: Case) -> None:
    case.log.dead.append({"sequence": 1})


def bury_nobody(case: Case) -> None:
    case.log.dead.clear()


def answer_otherwise(case: Case) -> None:
    one = next(iter(case.history.operations.values()))
    one.how, one.answer = "ask", {"applied": -1, "balance": 0}


FORGERIES: list[Callable[[Case], None]] = [
    lose_an_entry,
    store_an_entry_twice,
    store_an_entry_elsewhere,
    store_a_request_again_at_once,
    lose_a_transfer,
    store_a_transfer_twice,
    let_a_reminder_count_twice,
    lose_a_reminder,
    leave_a_reminder,
    lose_an_event,
    tell_an_event_twice,
    swap_two_events,
    hear_an_event_too_few,
    hear_an_event_twice,
    hear_something_else,
    change_a_balance,
    lag_behind,
    lose_a_job,
    start_a_job_twice,
    lose_a_result,
    bring_a_result_twice,
    leave_a_run_open,
    speak_after_the_end,
    speak_while_another_holds_the_run,
    leave_out_a_word,
    bury_somebody,
    bury_nobody,
    answer_otherwise,
]


async def honest(kit: Kit) -> Case:
    """What is left of a short load that nobody disturbed."""
    follower = Follower(kit.bus, "event.ledger.*")
    history = History()
    load = Load(kit.bus, history, random.Random(1), Amount(ENTRIES, SECONDS))
    load.enough.set()
    await load.run()
    await until_quiet(kit.bus, 30)
    await follower.stop()
    return Case(await read_log(kit.bus), history, follower)


def forge(case: Case, forgery: Callable[[Case], None]) -> list[str]:
    """What the judge says of a forged copy."""
    transcripts = copy.deepcopy(case.follower.transcripts)
    forged = Case(copy.deepcopy(case.log), copy.deepcopy(case.history), case.follower)
    forgery(forged)
    wrong = forged.wrong
    case.follower.transcripts = transcripts
    return wrong


async def test_the_judge_finds_every_forgery_and_nothing_else() -> None:
    async with running(ledger=Ledger, squarer=Squarer, singer=Singer) as kit:
        case = await honest(kit)
    found = case.wrong
    undetected = [f.__name__ for f in FORGERIES if await asyncio.to_thread(forge, case, f) == []]

    # Three nodes forget ids. Whoever asked is answered from memory; whoever told counts twice.
    case.history.forgetful = True
    asked = forge(case, store_a_request_again_at_once)
    told = forge(case, store_an_entry_twice)

    assert found == []
    assert undetected == []
    assert not [line for line in asked if line.startswith("inputs:")]
    assert [line for line in told if line.startswith("inputs:")]
