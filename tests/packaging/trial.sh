# The life of the Debian package where systemd runs: installed, served, killed, upgraded, removed, purged. Each line must
# succeed (bash -eu -o pipefail); the last one printed is "the trial is over".
set -x
cd /trial
package=$(echo /trial/*.deb)
invoices() { billstream summary --retry-for-secs 0 | grep -x 'invoice_count *[0-9]*' | tr -d ' a-z_'; }
fails() { if "$@"; then exit 1; fi; }
property() { systemctl show --property="$1" --value billstream; }

: it is installed, enabled, and serves, and says so
dpkg -i "$package"
test "$(systemctl is-active billstream)" = active
test "$(systemctl is-enabled billstream)" = enabled
test "$(property StatusText)" = 'serving on 127.0.0.1:50051'
billstream generate --rows 1000 --seed 1 | billstream import --format csv -
test "$(invoices)" = 1000

: it has no rights, and its files are its own
pid=$(property MainPID)
test "$(stat -c %U /proc/$pid)" = billstream
grep -x 'NoNewPrivs:	1' /proc/$pid/status
grep -x 'Seccomp:	2' /proc/$pid/status
grep -x 'CapBnd:	0000000000000000' /proc/$pid/status
test "$(stat -c '%U %a' /var/lib/billstream)" = 'billstream 750'
test "$(stat -c '%U %a' /var/lib/billstream/billstream.db)" = 'billstream 600'
systemd-analyze security --no-pager billstream | tail -1

: its user checks it and makes a backup beside it
su -s /bin/sh billstream -c 'billstream check --config /etc/billstream/billstream.toml' | grep -x 'the database is sound'
su -s /bin/sh billstream -c 'billstream backup --config /etc/billstream/billstream.toml /var/lib/billstream/copy.db'

: killed, it comes back by itself
kill -KILL "$pid"
timeout 60 sh -c "until [ \$(systemctl show -P MainPID billstream) -gt 0 ] &&
  [ \$(systemctl show -P MainPID billstream) != $pid ] && systemctl -q is-active billstream; do sleep 0.1; done"
test "$(property NRestarts)" = 1
test "$(invoices)" = 1000

: an upgrade keeps the configuration that was changed, and serves it
sed -i 's|^#listen = .*|listen = ["127.0.0.1:50051", "unix:/run/billstream/socket"]|' /etc/billstream/billstream.toml
pid=$(property MainPID)
dpkg -i "$package"
test "$(property MainPID)" != "$pid"
test "$(property StatusText)" = 'serving on 127.0.0.1:50051, unix:/run/billstream/socket'
billstream summary --addr unix:/run/billstream/socket --retry-for-secs 0
test "$(invoices)" = 1000

: with a wrong configuration it fails, and is not tried again and again
cp /etc/billstream/billstream.toml right.toml
echo 'max_exports = 0' >>/etc/billstream/billstream.toml
fails systemctl restart billstream
test "$(property Result) $(property ExecMainStatus) $(property NRestarts)" = 'exit-code 2 0'
cp right.toml /etc/billstream/billstream.toml
systemctl restart billstream
test "$(invoices)" = 1000

: what docs/install.md allows it more is what a low port, another directory and other users need
mkdir /etc/systemd/system/billstream.service.d /srv/bills
chown billstream /srv/bills
cp override.conf /etc/systemd/system/billstream.service.d
sed -i '/^listen = /s/50051/443/; s|^db = .*|db = "/srv/bills/bills.db"|' /etc/billstream/billstream.toml
systemctl daemon-reload
systemctl restart billstream
test "$(property StatusText)" = 'serving on 127.0.0.1:443, unix:/run/billstream/socket'
useradd --groups billstream member
useradd stranger
summary='billstream summary --retry-for-secs 0 --addr unix:/run/billstream/socket'
su member -c "$summary"
fails su stranger -c "$summary"
rm -r /etc/systemd/system/billstream.service.d
cp right.toml /etc/billstream/billstream.toml
systemctl daemon-reload
systemctl restart billstream

: removed, it does not serve, and leaves what is the operator\'s
dpkg -r billstream
fails test -e /usr/bin/billstream
fails systemctl -q is-active billstream
fails bash -c 'exec 3<>/dev/tcp/127.0.0.1/50051'
test -s /var/lib/billstream/billstream.db
cmp right.toml /etc/billstream/billstream.toml

: installed again, it serves the same invoices
dpkg -i "$package"
test "$(invoices)" = 1000

: purged, it leaves the databases, and says so
dpkg -P billstream | tee said
grep -F '/var/lib/billstream has databases and is kept' said
test -s /var/lib/billstream/billstream.db
fails test -e /etc/billstream

: and where there are none, nothing
rm -r /var/lib/billstream
dpkg -i "$package"
systemctl stop billstream
rm /var/lib/billstream/*
dpkg -P billstream
test -z "$(find /etc /usr /var/lib /run -name '*billstream*' -not -path '*/fs/*')"
fails dpkg -s billstream

echo the trial is over
