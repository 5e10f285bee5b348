"""Another machine's workerd, through ssh: `workerctl -H ssh://[USER@]HOST[:PORT]`.

    workerctl ── frames ── ssh ══ sshd ── frames ── workerctl dial-stdio ── workerd.sock

    address     what -H and WORKER_HOST may be
    frames      what goes over the wire; pure
    mux         many channels on one pair of pipes, for both ends
    threads     the threads that copy, for both ends
    ssh         the ssh process: starting it, and why it ended
    link        the near end: connections, descriptors, logs
    farlog      a job's log that is read over there
    dial        the far end, `workerctl dial-stdio`; dialfds and diallog are parts of it

What must hold: the near end (all but dial…) imports nothing that only Linux has, so that
macOS and Windows can be clients.
"""
