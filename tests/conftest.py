"""What all tests may rely on, however they were started."""

from __future__ import annotations

import signal

# In the background of a shell Ctrl-C is ignored, and what is ignored stays so for the
# programs that the tests start and interrupt (execve(2)).
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
