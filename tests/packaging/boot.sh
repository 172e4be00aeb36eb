#!/usr/bin/env bash
# Boots this machine's own systemd in namespaces, over a copy-on-write view of this machine's files, and runs a script
# there as a service. Nothing outside of DIR is changed, and all but DIR/output, which has what the script prints, is
# gone when it ends. Needs root.
#
#   boot.sh DIR SCRIPT FILE...    (SCRIPT finds each FILE in /trial)
set -eu

if [ $$ != 1 ]; then
  exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts --net "$0" "$@"
fi
dir=$1 script=$2
shift 2
layers=$dir/layers
root=$layers/root

mount --make-rprivate /
mkdir -p "$layers"
mount -t tmpfs tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for below in run tmp dev; do mount -t tmpfs tmpfs "$root/$below"; done
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/mqueue" "$root/dev/hugepages" "$root/dev/pts" "$root/trial"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
cp "$script" "$@" "$root/trial"

# A container's image may forbid its packages to start anything.
rm -f "$root/usr/sbin/policy-rc.d"
# Of this machine's services none starts: only the script, whose end is the end of all.
mkdir -p "$root/etc/systemd/system"
cat >"$root/etc/systemd/system/trial.service" <<END
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
TimeoutStartSec=5min
ExecStart=/bin/bash -eu -o pipefail /trial/$(basename "$script")
StandardOutput=truncate:/trial/output
StandardError=inherit
END
touch "$dir/output" "$root/trial/output"
mount --bind "$dir/output" "$root/trial/output"

# Not chroot, in which no service could have a user namespace.
cd "$root"
pivot_root . .
umount --lazy .
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --unit=trial.service --log-target=console --log-level=warning --show-status=no </dev/null >&2
