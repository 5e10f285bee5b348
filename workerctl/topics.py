"""What `workerctl help TOPIC` explains beside the verbs: text for 80 columns."""

from __future__ import annotations

TOPICS = {
    "format": (
        "templates: what --format prints",
        """\
--format TEMPLATE prints the template for each job (or check of doctor, or
event), with fields in braces:

  workerctl ps --format '{id:<12}{name:<16}{status}'
  workerctl status --format '{usage.memory_peak}' build
  workerctl ps -a --format '{id}\\t{spec.limits.memory}\\t{labels.team}'

A field is a name from --json, with dots into objects: {exit_code}, {reason},
{spec.cwd}, {spec.limits.memory}, {effective.cpus}, {usage.cpu_usec} …
Numbers are as in --json: bytes, microseconds, times since the epoch.
Beside these there are, written for people:

  {name} {user} {command}     the job's name, its user's, its command line
  {status}                    a word or two: running, done, out of memory
  {why}                       the state and its reason in words
  {age} {cpu} {memory}        since its creation; CPU time; memory (its peak,
                              once it has ended)
  {limit}                     the memory limit
  {labels} {labels.KEY}       all labels; one of them

{id:12} fills up to 12 columns, {id:>12} from the left, {id:^12} on both sides.
Verbs about something else have the fields of their own --json alone:

  workerctl run --format '{id} {waits_for}' make
  workerctl doctor -q --format '{level}: {check}'

{{ and }} are braces; \\t, \\n and \\\\ are as in C. What is not set is empty.
A field that there is not is an error which names those that there are.
""",
    ),
    "filter": (
        "conditions: what --filter takes",
        """\
--filter KEY=VALUE keeps the jobs that match. The same key again is an
alternative; different keys must all match, and so must all labels.

  state=STATE        queued, starting, running, paused, stopping, finished
  reason=REASON      exited, signaled, oom, timeout, stopped, start-failed,
                     lost, skipped: finished jobs, -a is not needed
  exit-code=N        finished jobs that exited with N
  user=USER          by name or number
  name=NAME          * ? and [...] as in a shell
  command=TEXT       that have this in their command line; with * ? as a whole
  id=PREFIX          that begin so
  label=KEY[=VALUE]  as --label

  workerctl ps --filter state=running --filter state=paused
  workerctl ps --filter reason=oom --filter name='nightly-*'

Of events there are besides kind=KIND (state, retry, oom, limit, renamed,
updated, removed); label and command are not theirs.
""",
    ),
    "json": (
        "what --json promises",
        """\
--json prints one JSON value on one line into a pipe or a file, and indented
on a terminal. Verbs that go on (out, stats, events) print one object a line.
Nothing else is on stdout: notices and errors are on stderr.

The shape does not depend on the job: every field is there, null where it is
not set. One job named is an object; several named, and lists, are an array,
also of one and of none. Fields are never renamed nor removed within a major
version, and new ones may come: a program ignores what it does not know.

Sizes are bytes; durations and times are microseconds, times since the epoch in
UTC; rates are by the second. State and reason are the words that --filter
takes. What each verb prints is listed in docs/json.md; docs/rpc.md explains
the fields of a job.
""",
    ),
    "remote": (
        "-H and WORKER_HOST: another machine, through ssh",
        """\
-H ssh://[USER@]HOST[:PORT], before or behind the verb, means the jobs of that
machine; WORKER_HOST in the environment says it once for all. It goes through
your own ssh, with its keys and configuration; worker must be installed there.

  workerctl -H ssh://ada@build.example ps
  workerctl run -H ssh://build.example -f -w src make
  export WORKER_HOST=ssh://build.example
  workerctl run -it bash

The jobs are those of the user whom ssh logs in. A job runs in that user's home
directory unless -w says where; paths are those of that machine, relative ones
from the home directory on. Of your environment nothing is sent but TERM for
-t, and what -e names: PATH, HOME and the like are as ssh has them there.

Input (-i), output, terminals (-t, attach, exec) and exit codes are as here.
When the connection breaks, jobs run on, and workerctl ends with 125.

  --socket PATH           with -H: workerd's socket on that machine
  -H unix:///PATH         a socket of this machine; -H '': this machine
  WORKER_SSH="ssh -F x"   another ssh, or options for it

More at once through one connection: ControlMaster in your ssh configuration.
""",
    ),
    "exit-codes": (
        "what workerctl's exit codes say",
        """\
  0        it worked; of run --wait, run -f, run -it, attach, exec and wait:
           the command ended with 0
  1 … 123  of these verbs, the command's own exit code
           wait --match: 1, the output ended without a match
           doctor: 1, warnings; 2, failures
  124      its time was over (run --timeout, wait --timeout)
  125      workerctl or workerd failed, or the command line was wrong; the
           error is on stderr; of several jobs, one or more were not served
  126      the command cannot be executed
  127      the command was not found
  128+N    the command was killed by signal N; 130 is also Ctrl-C in
           workerctl, and 141 a reader of its output that went away
""",
    ),
}
