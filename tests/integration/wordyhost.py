"""`callboard`, for a process of its own: `openai` means Wordy, and lost jobs come back soon."""

import runtime.pull
import runtime.run
import runtime.worker
from tests.integration.wordy import speak_wordy

if __name__ == "__main__":
    runtime.pull.ACK_WAIT = runtime.run.OVERDUE = 1.0
    runtime.worker.HEARTBEAT = 0.3
    speak_wordy()
    from runtime.cli import main

    main()
