#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Init of the machine that kernel_test.py boots: client, balancer and backend
# in three network namespaces, the real xlb between them; results to the console.
ip=/bin/ip # not busybox's
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
for m in veth sch_ingress cls_bpf; do
	insmod /lib/modules/$m.ko || echo "RESULT insmod_$m 1"
done
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
$ip link set lo up
unshare -n sleep 1000 &
client=$!
unshare -n sleep 1000 &
server=$!
sleep 1
in_client() { nsenter -t $client -n "$@"; }
in_server() { nsenter -t $server -n "$@"; }

$ip link add uplink type veth peer name cl0
$ip link add port1 type veth peer name be0
$ip link set cl0 netns $client
$ip link set be0 netns $server
$ip addr add 192.0.2.1/24 dev uplink
$ip addr add 2001:db8::1/64 dev uplink nodad
$ip addr add 10.77.0.1/24 dev port1
$ip addr add fd00:77::1/64 dev port1 nodad
$ip link set uplink up
$ip link set port1 up
in_client $ip addr add 192.0.2.100/24 dev cl0
in_client $ip addr add 2001:db8::100/64 dev cl0 nodad
in_client $ip link set cl0 up
in_server $ip addr add 10.77.0.11/24 dev be0
in_server $ip addr add fd00:77::11/64 dev be0 nodad
in_server $ip link set be0 up
in_server $ip route add default via 10.77.0.1
in_server $ip route add ::/0 via fd00:77::1
in_server xlb-backend -n b1 -p 80 -u 9000 &
sleep 1

xlb() {
	xlb-reconcile -f /etc/services.yaml --state-dir /run/xlb \
		--bpffs /sys/fs/bpf/xlb "$@"
}
load() { # NAME ARGUMENTS...
	name=$1
	shift
	in_client xlb-load --duration 20 "$@" >/run/load
	echo "RESULT $name $?"
	tail -n 1 /run/load
}
xlb run --once --timeout 60s
echo "RESULT once $?"
load tcp4 --to 192.0.2.10:80 --count 50 --rate 50
load tcp6 --to '[2001:db8::10]:80' --count 50 --rate 50
load bulk --to 192.0.2.10:80 --count 5 --rate 5 --bytes 2000000
load udp4 --mode udp --to 192.0.2.10:9000 --count 50 --rate 50
xlb plan --detailed-exitcode
echo "RESULT plan $?"
xlb destroy --yes
echo "RESULT destroy $?"
echo "KERNEL $(cat /proc/version)"
poweroff -f
