/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program where backends' packets come in: tc, ingress. */
#include "reply.h"
#include "reply_icmp.h"

/* The headers, up to the transport one.  false: nothing for us. */
static __noinline bool parse_v4(struct __sk_buff *skb, struct answer *a)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &ip, sizeof(ip)) ||
	    *(__u8 *)&ip != 0x45)
		return false;
	a->from.addr[0] = ip.saddr;
	a->from.proto = ip.protocol;
	a->from.family = FAMILY_V4;
	a->dst[0] = ip.daddr;
	a->id = ip.id;
	a->l4 = L3_OFFSET + sizeof(ip);
	a->ttl = ip.ttl;
	a->len = skb->len - L3_OFFSET;
	a->dont_fragment = ip.frag_off & bpf_htons(IP_DF);
	a->later = ip.frag_off & bpf_htons(IP_OFFSET);
	a->first = !a->later && (ip.frag_off & bpf_htons(IP_MF));
	return true;
}

/* A fragment header right behind the IPv6 header, if there is one. */
static __always_inline bool parse_fragment_v6(struct __sk_buff *skb,
					      struct answer *a)
{
	struct fragment_header frag;

	if (bpf_skb_load_bytes(skb, a->l4, &frag, sizeof(frag)))
		return false;
	a->from.proto = frag.nexthdr;
	a->id = frag.id;
	a->later = frag.offset & bpf_htons(IP6_OFFSET);
	a->first = !a->later && (frag.offset & bpf_htons(IP6_MF));
	a->l4 += sizeof(frag);
	return true;
}

static __noinline bool parse_v6(struct __sk_buff *skb, struct answer *a)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &ip, sizeof(ip)))
		return false;
	copy_addr(a->from.addr, &ip.saddr);
	copy_addr(a->dst, &ip.daddr);
	a->from.proto = ip.nexthdr;
	a->from.family = FAMILY_V6;
	a->l4 = L3_OFFSET + sizeof(ip);
	a->ttl = ip.hop_limit;
	a->len = skb->len - L3_OFFSET;
	a->dont_fragment = true;
	if (ip.nexthdr == IPPROTO_FRAGMENT && !parse_fragment_v6(skb, a))
		return false;
	return true;
}

SEC("tc")
int xlb_reply(struct __sk_buff *skb)
{
	struct answer a = {};

	if (skb->vlan_present)
		return TC_ACT_OK;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!parse_v4(skb, &a))
			return TC_ACT_OK;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
		   !parse_v6(skb, &a)) {
		return TC_ACT_OK;
	}
	if (a.later)
		return answer_later(skb, &a);
	if (a.from.proto == IPPROTO_ICMP && a.from.family == FAMILY_V4)
		return answer_icmp_v4(skb, &a);
	if (a.from.proto == IPPROTO_ICMPV6 && a.from.family == FAMILY_V6)
		return answer_icmp_v6(skb, &a);
	if (!proto_has_ports(a.from.proto) || !answer_ports(skb, &a))
		return TC_ACT_OK;
	return answer(skb, &a);
}

char _license[] SEC("license") = "GPL";
