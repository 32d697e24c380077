"""`callboard`, for a process of its own: `openai` means Wordy, and all else is as it is shipped."""

from tests.integration.wordy import speak_wordy

if __name__ == "__main__":
    speak_wordy()
    from runtime.cli import main

    main()
