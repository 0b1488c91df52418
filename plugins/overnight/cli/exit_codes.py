"""The exit statuses that the commands share, beside 0."""

NOT_COMPLETE = 1
"""What was asked for was done in part, was found wanting, or broke off."""
REFUSED = 2
"""Nothing was done: a wrong option, a wrong file, an address where nobody is."""
INTERRUPTED = 130
"""As a shell has it for a command that Ctrl-C ended."""
