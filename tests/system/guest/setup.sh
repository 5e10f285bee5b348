#!/bin/sh
# Runs in the new root, on the host, once: what the packages leave to be done.
# The kernel and what the initial RAM disk is made of are left in /boot/worker-vm.
set -eu

echo worker-vm >/etc/hostname
printf '127.0.0.1\tlocalhost worker-vm\n::1\tlocalhost\n' >/etc/hosts
echo LANG=C.UTF-8 >/etc/default/locale
# Fixed, so that no boot has to make and commit one.
printf worker-vm | md5sum | cut -c1-32 >/etc/machine-id
mkdir -p /data
passwd -d root >/dev/null

# Two ordinary users for the tests: they must not see each other's jobs.
for user in alice bob; do
	useradd --create-home --shell /bin/bash "$user"
done

systemctl --quiet enable worker-vm-agent.service
systemctl --quiet set-default multi-user.target

# Each unit here costs a fork or a wait in every boot, and a boot under
# emulation is some 25 times slower than a real one.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer \
	systemd-tmpfiles-clean.timer getty@tty1.service getty-static.service \
	systemd-networkd.service systemd-resolved.service systemd-timesyncd.service \
	systemd-pstore.service systemd-random-seed.service systemd-update-utmp.service \
	systemd-update-utmp-runlevel.service systemd-hwdb-update.service \
	systemd-binfmt.service systemd-rfkill.service systemd-rfkill.socket \
	ldconfig.service modprobe@drm.service modprobe@efi_pstore.service \
	modprobe@fuse.service modprobe@configfs.service; do
	systemctl --quiet mask "$unit"
done

out=/boot/worker-vm
mkdir -p "$out/modules"
version=$(ls /lib/modules)
cp "/boot/vmlinuz-$version" "$out/vmlinuz"
cp /bin/busybox "$out/busybox"
for module in virtio_pci virtio_blk virtio_console; do
	modprobe --set-version "$version" --show-depends "$module"
done | while read -r action path _; do
	[ "$action" = insmod ] || continue
	name=${path##*/}
	[ ! -e "$out/modules/$name" ] || continue
	cp "$path" "$out/modules/$name"
	echo "$name" >>"$out/modules/order"
done
python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"$out/python-version"
echo "$version" >"$out/kernel-version"
