# shellcheck shell=sh disable=SC2154 # read by install and deb, after paths.sh
# What is laid under $DESTDIR beside the Python packages; $scratch is a directory for it.

# write_commands BIN: workerd and workerctl, as they are to be started from $home
write_commands() {
    for name in workerd workerctl; do
        # -I: neither PYTHONPATH nor the user's own packages can change a root daemon, nor slow the client;
        # -S: nor does `site` look for more than our own packages, and take 3 ms for that
        cat >"$1/$name" <<END
#!$home/bin/python3 -IS
import sys
sys.path.append("$home/lib/python%d.%d/site-packages" % sys.version_info[:2])
from $name.__main__ import main
sys.exit(main())
END
        chmod 755 "$1/$name"
    done
}

install_files() {
    install -d "$DESTDIR$PREFIX/bin" "$DESTDIR$units" "$DESTDIR$sysusers" "$DESTDIR$tmpfiles" "$DESTDIR/etc/workerd"
    ln -sfn ../lib/worker/bin/workerd "$DESTDIR$PREFIX/bin/workerd"
    ln -sfn ../lib/worker/bin/workerctl "$DESTDIR$PREFIX/bin/workerctl"
    for file in $SHARED; do
        install -D -m 644 "$DESTDIR$home/share/$file" "$DESTDIR$PREFIX/share/$file"
    done
    rm -r "$DESTDIR$home/share"
    for unit in $UNITS; do
        sed "s|/usr/local/lib/worker/|$home/|g" "systemd/$unit" >"$scratch/$unit"
        install -m 644 "$scratch/$unit" "$DESTDIR$units/$unit"
    done
    install -m 644 systemd/sysusers.conf "$DESTDIR$sysusers/worker.conf"
    install -m 644 systemd/tmpfiles.conf "$DESTDIR$tmpfiles/worker.conf"
    [ -e "$DESTDIR/etc/workerd/workerd.toml" ] || install -m 644 systemd/workerd.toml "$DESTDIR/etc/workerd/workerd.toml"
}
