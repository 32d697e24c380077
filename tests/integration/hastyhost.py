"""`callboard`, for a process of its own: jobs of a host that was lost come back soon."""

import runtime.pull
import runtime.run
import runtime.worker

if __name__ == "__main__":
    runtime.pull.ACK_WAIT = runtime.run.OVERDUE = 1.0
    runtime.worker.HEARTBEAT = 0.3
    from runtime.cli import main

    main()
