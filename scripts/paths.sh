# shellcheck shell=sh disable=SC2034 # read by install and uninstall
# Where things go. systemd looks in /usr/lib, /usr/local/lib and /etc only.
: "${PREFIX:=/usr/local}" "${DESTDIR:=}" "${WHEELHOUSE:=}" "${PURGE:=}"
UNITS="workerd.service workerd.socket workerd-jobs.service worker.slice
    workerd-metrics.service workerd-metrics.timer"
# Of the wheel's data: manual pages, and completion, each where it is looked for
SHARED="man/man1/workerctl.1 man/man5/workerd.toml.5 man/man8/workerd.8
    bash-completion/completions/workerctl zsh/site-functions/_workerctl
    fish/vendor_completions.d/workerctl.fish"
home=$PREFIX/lib/worker
case $PREFIX in
/usr | /usr/local)
    units=$PREFIX/lib/systemd/system
    sysusers=$PREFIX/lib/sysusers.d
    tmpfiles=$PREFIX/lib/tmpfiles.d
    ;;
*)
    units=/etc/systemd/system
    sysusers=/etc/sysusers.d
    tmpfiles=/etc/tmpfiles.d
    ;;
esac
