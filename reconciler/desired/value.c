/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/value.h"

#include <string.h>
#include <strings.h>

#define MAX_DIGITS 15 /* so that a double holds it exactly */
#define MAX_PLACES 6

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit time_units[] = {
	{ "d", 86400000000000ULL }, { "h", 3600000000000ULL },
	{ "m", 60000000000ULL },    { "s", 1000000000ULL },
	{ "ms", 1000000ULL },
};
static const struct unit size_units[] = {
	{ "GiB", 1ULL << 30 },
	{ "MiB", 1ULL << 20 },
	{ "KiB", 1ULL << 10 },
};
static const struct unit count_units[] = {
	{ "", 1 },
	{ "k", 1000 },
	{ "M", 1000000 },
	{ "G", 1000000000 },
};

struct decimal { /* digits / 10^places, then a unit */
	uint64_t digits;
	unsigned int places;
	const char *unit;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool take_digits(const char **s, struct decimal *d, int *budget)
{
	const char *start = *s;

	for (; is_digit(**s); (*s)++) {
		if ((*budget)-- == 0)
			return false;
		d->digits = d->digits * 10 + (uint64_t)(**s - '0');
	}
	return *s != start;
}

/* No sign, no exponent, no leading zeros, no locale. */
static bool parse_decimal(const char *s, struct decimal *ret)
{
	struct decimal d = { 0 };
	int budget = MAX_DIGITS;

	if (s[0] == '0' && is_digit(s[1]))
		return false;
	if (!take_digits(&s, &d, &budget))
		return false;
	if (*s == '.') {
		const char *point = s++;

		if (!take_digits(&s, &d, &budget))
			return false;
		d.places = (unsigned int)(s - point - 1);
		if (d.places > MAX_PLACES)
			return false;
	}
	d.unit = s;
	*ret = d;
	return true;
}

static uint64_t power_of_ten(unsigned int n)
{
	uint64_t p = 1;

	while (n--)
		p *= 10;
	return p;
}

static const struct unit *find_unit(const struct unit *units, size_t count,
				    const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(units[i].name, name))
			return &units[i];
	return NULL;
}

static bool parse_whole(const char *s, const struct unit *units, size_t count,
			uint64_t *ret)
{
	struct decimal d;
	const struct unit *u;
	unsigned __int128 v;

	if (!parse_decimal(s, &d))
		return false;
	u = find_unit(units, count, d.unit);
	if (!u)
		return false;
	v = (unsigned __int128)d.digits * u->factor;
	if (v % power_of_ten(d.places))
		return false;
	v /= power_of_ten(d.places);
	if (v > UINT64_MAX)
		return false;
	*ret = (uint64_t)v;
	return true;
}

bool value_duration(const char *s, uint64_t *ret)
{
	return parse_whole(s, time_units, ARRAY_SIZE(time_units), ret);
}

bool value_size(const char *s, uint64_t *ret)
{
	uint64_t v;

	if (!parse_whole(s, size_units, ARRAY_SIZE(size_units), &v) || v % 1024)
		return false;
	*ret = v;
	return true;
}

bool value_count(const char *s, uint64_t *ret)
{
	return parse_whole(s, count_units, ARRAY_SIZE(count_units), ret);
}

bool value_number(const char *s, double *ret)
{
	struct decimal d;
	const struct unit *u;

	if (!parse_decimal(s, &d))
		return false;
	u = find_unit(count_units, ARRAY_SIZE(count_units), d.unit);
	if (!u)
		return false;
	*ret = (double)d.digits * (double)u->factor /
	       (double)power_of_ten(d.places);
	return true;
}

bool value_percent(const char *s, double *ret)
{
	struct decimal d;

	if (!parse_decimal(s, &d) || strcmp(d.unit, "%") != 0)
		return false;
	*ret = (double)d.digits / (double)power_of_ten(d.places);
	return true;
}

static bool parse_length(const char *s, const struct ip *a, int *ret)
{
	struct decimal d;

	if (!parse_decimal(s, &d) || d.places || *d.unit ||
	    d.digits > (uint64_t)ip_bits(a))
		return false;
	*ret = (int)d.digits;
	return true;
}

/* Address s[0..len). */
static bool parse_part(const char *s, size_t len, struct ip *ret)
{
	char text[IP_STRLEN];

	if (len >= sizeof(text))
		return false;
	memcpy(text, s, len);
	text[len] = '\0';
	return ip_parse(text, ret);
}

bool value_prefix(const char *s, struct prefix *ret)
{
	const char *slash = strchr(s, '/');
	struct prefix p = { 0 };

	if (!parse_part(s, slash ? (size_t)(slash - s) : strlen(s), &p.address))
		return false;
	p.length = ip_bits(&p.address);
	if (slash && !parse_length(slash + 1, &p.address, &p.length))
		return false;
	*ret = p;
	return true;
}

bool value_range(const char *s, struct address_range *ret)
{
	const char *dash = strchr(s, '-'), *slash = strchr(s, '/');
	struct ip first, last;
	int prefix;

	if (!dash || !slash || slash < dash ||
	    !parse_part(s, (size_t)(dash - s), &first) ||
	    !parse_part(dash + 1, (size_t)(slash - dash - 1), &last) ||
	    !parse_length(slash + 1, &last, &prefix))
		return false;
	ret->first = first;
	ret->last = last;
	ret->prefix = prefix;
	return true;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *at;

	if (c >= 'A' && c <= 'F')
		c = (char)(c - 'A' + 'a');
	at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

bool value_mac(const char *s, uint8_t ret[6])
{
	uint8_t mac[6];

	if (strlen(s) != 17)
		return false;
	for (int i = 0; i < 6; i++, s += 3) {
		int high = hex_digit(s[0]), low = hex_digit(s[1]);

		if (high < 0 || low < 0 || s[2] != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret, mac, sizeof(mac));
	return true;
}

static bool is_word(const char *s, const char *const *words, size_t count)
{
	if (strlen(s) > 5)
		return false; /* longer than any of them */
	for (size_t i = 0; i < count; i++)
		if (!strcasecmp(s, words[i]))
			return true;
	return false;
}

/* [0-9_]+(:[0-9]+)+, as YAML 1.1 writes numbers in base 60. */
static bool is_base60(const char *s)
{
	return is_digit(*s) && strchr(s, ':') &&
	       s[strspn(s, "0123456789_:.")] == '\0' && !strstr(s, "::");
}

static bool is_date(const char *s)
{
	size_t year = strspn(s, "0123456789");
	size_t month =
		year == 4 && s[4] == '-' ? strspn(s + 5, "0123456789") : 0;

	return month >= 1 && month <= 2 && s[5 + month] == '-' &&
	       is_digit(s[6 + month]);
}

static bool is_float(const char *s)
{
	size_t dots = 0, digits = 0;

	for (; is_digit(*s) || *s == '_' || *s == '.'; s++) {
		dots += *s == '.';
		digits += is_digit(*s);
	}
	if (!digits || dots > 1)
		return false;
	if (*s != 'e' && *s != 'E')
		return *s == '\0';
	s++;
	s += *s == '+' || *s == '-';
	return is_digit(*s) && s[strspn(s, "0123456789")] == '\0';
}

static bool is_numeric(const char *s)
{
	static const char *const specials[] = { ".inf", ".nan" };

	s += *s == '+' || *s == '-';
	if (is_word(s, specials, ARRAY_SIZE(specials)))
		return true;
	if (s[0] == '0' && s[1] && strchr("xXoObB", s[1]))
		return s[2] &&
		       s[2 + strspn(s + 2, "0123456789abcdefABCDEF_")] == '\0';
	return is_float(s);
}

const char *value_misread(const char *s)
{
	static const char *const booleans[] = { "y",  "n",   "yes",  "no",
						"on", "off", "true", "false" };
	static const char *const nulls[] = { "", "~", "null" };

	if (is_word(s, booleans, ARRAY_SIZE(booleans)))
		return "a boolean";
	if (is_word(s, nulls, ARRAY_SIZE(nulls)))
		return "no value at all";
	if (is_base60(s[0] == '-' || s[0] == '+' ? s + 1 : s))
		return "a number in base 60";
	if (is_date(s))
		return "a date";
	if (is_numeric(s))
		return s[0] == '0' && is_digit(s[1]) ? "an octal number"
						     : "a number";
	return NULL;
}

/* One code point of text that libyaml has already found to be UTF-8. */
static uint32_t next_code_point(const unsigned char **s)
{
	uint32_t c = *(*s)++;
	int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

	if (more)
		c &= 0x3fu >> more;
	while (more-- && (**s & 0xc0) == 0x80)
		c = c << 6 | (*(*s)++ & 0x3fu);
	return c;
}

bool value_is_clean(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	while (*p) {
		uint32_t c = next_code_point(&p);

		if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 ||
		    c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff)
			return false;
	}
	return true;
}

/* The largest unit that leaves no remainder. */
static const struct unit *exact_unit(const struct unit *units, size_t count,
				     uint64_t v)
{
	for (size_t i = 0; i < count; i++)
		if (v % units[i].factor == 0)
			return &units[i];
	return NULL;
}

void print_duration(struct buf *out, uint64_t ns)
{
	const struct unit *u =
		exact_unit(time_units, ARRAY_SIZE(time_units), ns);

	if (!ns) {
		buf_adds(out, "0s");
	} else if (u) {
		buf_addf(out, "%llu%s", (unsigned long long)(ns / u->factor),
			 u->name);
	} else {
		print_number(out, (double)ns / 1e6);
		buf_adds(out, "ms");
	}
}

void print_size(struct buf *out, uint64_t bytes)
{
	const struct unit *u =
		exact_unit(size_units, ARRAY_SIZE(size_units), bytes);

	if (u)
		buf_addf(out, "%llu%s", (unsigned long long)(bytes / u->factor),
			 u->name);
}

void print_number(struct buf *out, double v)
{
	char text[400];
	size_t len;

	/* Six places are all that the parser takes, so nothing is lost. */
	snprintf(text, sizeof(text), "%.6f", v);
	len = strlen(text);
	while (text[len - 1] == '0')
		len--;
	if (text[len - 1] == '.')
		len--;
	buf_add(out, text, len);
}

static bool is_safe_plain(const char *s)
{
	const char *letters =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	const char *others = "0123456789._/-";

	if (!strchr(letters, *s) && !is_digit(*s) && *s != '/')
		return false;
	for (const char *p = s; *p; p++)
		if (!strchr(letters, *p) && !strchr(others, *p))
			return false;
	return !value_misread(s);
}

void print_text(struct buf *out, const char *s)
{
	if (*s && is_safe_plain(s)) {
		buf_adds(out, s);
		return;
	}
	buf_adds(out, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_adds(out, "\\");
		buf_add(out, s, 1);
	}
	buf_adds(out, "\"");
}
