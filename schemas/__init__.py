"""What processes agree on: envelope, subjects, messages and states. Imports nothing of ours."""
