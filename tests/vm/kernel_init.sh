#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Init of the machine that kernel_test.py boots: client, balancer and two
# backends in network namespaces, the real xlb between them.  /etc/steps says
# what is done there; results go to the console.
#
#                          uplink [ balancer ] port1 ---- be0 b1
#   client [ sw0 sw1 sw2 ]            port2 ---- be0 b2
#                 |   be1 b2
#                be1 b1
#
# What nat has behind port1 and port2 is for the others on the uplink's own
# network, where they are reached on a stick: kernels before 6.3 don't say which
# ports take frames from XDP, and only nat can do without.
ip=/bin/ip # not busybox's
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
while read -r m; do
	insmod "/lib/modules/$m.ko" || echo "RESULT insmod_$m 1"
done </lib/modules/order
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
$ip link set lo up
unshare -n sleep 1000 &
client=$!
unshare -n sleep 1000 &
b1=$!
unshare -n sleep 1000 &
b2=$!
sleep 1
in_client() { nsenter -t $client -n "$@"; }
in_b1() { nsenter -t $b1 -n "$@"; }
in_b2() { nsenter -t $b2 -n "$@"; }

$ip link add uplink type veth peer name sw0 netns $client
$ip link add port1 type veth peer name be0 netns $b1
$ip link add port2 type veth peer name be0 netns $b2
$ip link add sw1 netns $client type veth peer name be1 netns $b1
$ip link add sw2 netns $client type veth peer name be1 netns $b2
$ip addr add 192.0.2.1/24 dev uplink
$ip addr add 2001:db8::1/64 dev uplink nodad
$ip addr add 10.77.1.1/24 dev port1
$ip addr add fd00:77:1::1/64 dev port1 nodad
$ip addr add 10.77.2.1/24 dev port2
$ip addr add fd00:77:2::1/64 dev port2 nodad
for i in uplink port1 port2; do
	$ip link set $i up
done
in_client $ip link set lo up
in_client $ip link add switch type bridge forward_delay 0 mcast_snooping 0
for i in sw0 sw1 sw2; do
	in_client $ip link set $i master switch up
done
in_client $ip link set switch up
in_client $ip addr add 192.0.2.100/24 dev switch
in_client $ip addr add 2001:db8::100/64 dev switch nodad
# XDP sees packets before anything completes their checksums, and what it sends
# back over a veth waits for ever where there is no program at the other end.
in_client ethtool -K switch tx off >/run/ethtool
in_client $ip link set dev sw0 xdpdrv obj /etc/pass.o sec xdp ||
	echo "RESULT pass 1"

backend() { # RUN NUMBER
	$1 $ip link set lo up
	$1 $ip addr add 10.77.$2.11/24 dev be0
	$1 $ip addr add fd00:77:$2::11/64 dev be0 nodad
	$1 $ip addr add 192.0.2.5$2/24 dev be1
	$1 $ip addr add 2001:db8::5$2/64 dev be1 nodad
	$1 $ip link set be0 up
	$1 $ip link set be1 up
	# Answers of nat go back by the balancer, though the client is near.
	$1 $ip route add default via 10.77.$2.1 table 100
	$1 $ip -6 route add default via fd00:77:$2::1 table 100
	$1 $ip rule add from 10.77.$2.11 table 100
	$1 $ip -6 rule add from fd00:77:$2::11 table 100
	# It owns the VIPs of all but nat, and says so to nobody.
	$1 sh -c 'echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
		echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce'
	while read -r vip; do
		$1 $ip addr add $vip dev lo
	done </etc/vips
	$1 xlb-backend -n b$2 -p 80 -u 9000 &
}
backend in_b1 1
backend in_b2 2
# A port that takes no frames from XDP is reached by the stack; one of each.
in_b2 ethtool -K be0 gro on >/run/ethtool

# The first one opens tunnels, with what the kernel has for that; they come
# from any address.
in_b1 $ip link add t6 type ip6tnl mode any local 2001:db8::51 remote any
for i in tunl0 sit0 t6; do
	in_b1 $ip link set $i up || echo "RESULT tunnel_$i 1"
done
in_b1 $ip fou add port 6080 gue || echo "RESULT gue4 1"
in_b1 $ip -6 fou add port 6080 gue || echo "RESULT gue6 1"
sleep 1

xlb() {
	xlb-reconcile -f /run/services.yaml --state-dir /run/xlb \
		--bpffs /sys/fs/bpf/xlb "$@"
}
apply() { # NAME RESULT: /etc/NAME.yaml is what should be
	cp "/etc/$1.yaml" /run/new.yaml
	mv /run/new.yaml /run/services.yaml
	echo "applying $1"
	xlb run --once --timeout 60s
	status=$?
	echo "RESULT $2 $status"
	[ $status = 0 ] && return
	# All that follows would fail too, slowly; what the verifier said is last.
	xlb -v run --once --timeout 2s 2>&1 | tail -n 60
	poweroff -f
}
load() { # NAME ARGUMENTS...
	name=$1
	shift
	in_client xlb-load --duration 20 --timeout 3 "$@" >/run/load
	echo "RESULT $name $?"
	tail -n 1 /run/load
}
hold() { # ARGUMENTS...: in the background, until release
	: >/run/held
	nsenter -t $client -n xlb-load --mode keep --duration 600 "$@" >/run/held &
	held=$!
	tries=0
	until grep -q '"open": 30' /run/held || [ $tries = 100 ]; do
		sleep 0.2
		tries=$((tries + 1))
	done
}
release() { # NAME
	kill -TERM $held
	wait $held
	echo "RESULT $1 $?"
	tail -n 1 /run/held
}
empty() { # NAME: there is nothing left to do
	xlb plan --detailed-exitcode
	echo "RESULT $1 $?"
}
trace() { # NAME: packets are sampled while connections go on
	xlb run >/run/daemon 2>&1 &
	until [ -S /run/xlb/control.sock ]; do
		sleep 0.2
	done
	: >/run/sampled # not what an earlier one said
	xlb trace --live --json --vip 192.0.2.10:80 --count 6 --for 60s \
		>/run/samples 2>/run/sampled &
	tracer=$!
	tries=0
	until grep -q sampled /run/sampled || [ $tries = 200 ]; do
		sleep 0.2
		tries=$((tries + 1))
	done
	load $1_load --to 192.0.2.10:80 --count 20 --rate 40
	wait $tracer
	status=$?
	found=$(grep -c '"service":"web".*"verdict":"s' /run/samples)
	[ $status = 0 ] && [ "$found" = 6 ] || cat /run/sampled /run/samples
	echo "RESULT $1 $((status + 6 - found))"
	kill -TERM $(cat /run/xlb/lock)
	while [ -S /run/xlb/control.sock ]; do
		sleep 0.2
	done
	sleep 1
}
. /etc/steps
xlb destroy --yes
echo "RESULT destroy $?"
echo "KERNEL $(cat /proc/version)"
poweroff -f
