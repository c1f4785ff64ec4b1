/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program where backends' packets come in: tc, ingress. */
#define XLB_TC
#include "reply.h"
#include "reply_icmp.h"
#include "traced.h"

/* Beside or in front of the packet: what its tags hide.  0: cut short. */
static __always_inline __be16 answer_type(struct __sk_buff *skb,
					  struct answer *a)
{
	__be16 type = (__be16)skb->protocol;

	a->l3 = sizeof(struct ethhdr);
	a->tags = skb->vlan_present ? 1 : 0;
	for (int i = 0; i < MAX_TAGS && is_tag(type); i++) {
		/* Behind its two bytes of control there is the next type. */
		if (bpf_skb_load_bytes(skb, a->l3 + 2, &type, sizeof(type)))
			return 0;
		a->l3 += (__u32)sizeof(struct vlan_tag);
		a->tags++;
	}
	return type;
}

/* The headers, up to the transport one.  false: nothing for us. */
static __always_inline bool answer_headers(struct __sk_buff *skb,
					   struct answer *a)
{
	__be16 type = answer_type(skb, a);
	struct ipv6hdr ip6;
	struct iphdr ip;

	a->len = skb->len - a->l3;
	if (type == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, a->l3, &ip, sizeof(ip)))
			return false;
		a->ttl = ip.ttl;
		a->dont_fragment = ip.frag_off & bpf_htons(IP_DF);
		return !headers_v4(skb, a->l3, &a->h);
	}
	if (type != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, a->l3, &ip6, sizeof(ip6)))
		return false;
	a->ttl = ip6.hop_limit;
	a->dont_fragment = true;
	return !headers_v6(skb, a->l3, &a->h);
}

static __always_inline int answer_packet(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct reply *r = bpf_map_lookup_elem(&reply_place, &key);
	struct answer *a;

	if (!r)
		return TC_ACT_OK;
	a = &r->a;
	*a = (struct answer){};
	if (!answer_headers(skb, a))
		return TC_ACT_OK;
	copy_addr(a->from.addr, a->h.key.src);
	a->from.proto = a->h.proto;
	a->from.family = (__u8)a->h.key.family;
	if (a->h.later)
		return answer_later(skb, a);
	if (a->h.proto == IPPROTO_ICMP && a->from.family == FAMILY_V4)
		return answer_icmp(skb, a, &r->q);
	if (a->h.proto == IPPROTO_ICMPV6 && a->from.family == FAMILY_V6)
		return answer_icmp(skb, a, &r->q);
	if (!proto_has_ports(a->h.proto) || !answer_ports(skb, a))
		return TC_ACT_OK;
	return answer(skb, a);
}

SEC("tc")
int xlb_reply(struct __sk_buff *skb)
{
	return TRACED(XLB_HOOK_REPLY, skb, answer_packet(skb));
}

char _license[] SEC("license") = "GPL";
