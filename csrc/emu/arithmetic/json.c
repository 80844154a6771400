#include "json.h"

#include <string.h>

#define DEEPEST 32

static bool fail(json_reader *r, const char *why)
{
    if (!r->error) r->error = why;
    return false;
}

void json_open(json_reader *r, const char *text, size_t size)
{
    *r = (json_reader){.start = text, .at = text, .end = text + size};
}

/* The next character that is not white space, 0 at the end. */
static char peek(json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
    return r->at < r->end ? *r->at : 0;
}

static bool expect(json_reader *r, char c, const char *why)
{
    if (r->error) return false;
    if (peek(r) != c) return fail(r, why);
    r->at++;
    return true;
}

static bool enter(json_reader *r, char c, const char *why)
{
    if (!expect(r, c, why)) return false;
    return ++r->depth <= DEEPEST || fail(r, "nested too deeply");
}

/* Consumes the separator before the next element, or the closing bracket (then false). */
static bool more(json_reader *r, bool *first, char close, const char *why)
{
    if (r->error) return false;
    char c = peek(r);
    if (c == close) {
        r->at++;
        r->depth--;
        return false;
    }
    if (!*first && !expect(r, ',', why)) return false;
    *first = false;
    return true;
}

bool json_object(json_reader *r)
{
    return enter(r, '{', "an object was expected");
}

bool json_array(json_reader *r)
{
    return enter(r, '[', "an array was expected");
}

bool json_item(json_reader *r, bool *first)
{
    return more(r, first, ']', "',' or ']' was expected");
}

bool json_key(json_reader *r, bool *first, char *key, size_t size)
{
    return more(r, first, '}', "',' or '}' was expected") && json_string(r, key, size)
        && expect(r, ':', "':' was expected");
}

static int hex4(const char *s)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The code point of a \u escape, whose four digits (and those of a low surrogate) are consumed; 0 after an error. */
static uint32_t unicode_escape(json_reader *r)
{
    int high = r->end - r->at >= 4 ? hex4(r->at) : -1;
    if (high <= 0) return (uint32_t)fail(r, "a \\u escape needs four hexadecimal digits and may not be NUL");
    r->at += 4;
    if (high < 0xd800 || high > 0xdfff) return (uint32_t)high;
    int low = high < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u' ? hex4(r->at + 2) : -1;
    if (low < 0xdc00 || low > 0xdfff) return (uint32_t)fail(r, "half a surrogate pair");
    r->at += 6;
    return 0x10000u + (((uint32_t)high & 0x3ff) << 10) + ((uint32_t)low & 0x3ff);
}

static size_t utf8(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00 >> n) | code); /* 0xc0, 0xe0 or 0xf0 in the low byte */
    return n;
}

/* One character or escape sequence of a string as up to 4 bytes; 0 after an error. */
static size_t character(json_reader *r, char out[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    unsigned char c = (unsigned char)*r->at++;
    if (c < 0x20) return (size_t)fail(r, "a control character in a string");
    if (c != '\\') {
        out[0] = (char)c;
        return 1;
    }
    if (r->at == r->end) return (size_t)fail(r, "the text ends inside a string");
    char kind = *r->at++;
    if (kind == 'u') {
        uint32_t code = unicode_escape(r);
        return code ? utf8(code, out) : 0;
    }
    const char *found = kind ? strchr(from, kind) : NULL;
    if (!found) return (size_t)fail(r, "an unknown escape in a string");
    out[0] = to[found - from];
    return 1;
}

/* out NULL: thrown away. */
static bool string(json_reader *r, char *out, size_t size)
{
    if (!expect(r, '"', "a string was expected")) return false;
    size_t used = 0;
    while (r->at < r->end && *r->at != '"') {
        char bytes[4];
        size_t n = character(r, bytes);
        if (n == 0) return false;
        if (!out) continue;
        if (used + n >= size) return fail(r, "a string is too long");
        memcpy(out + used, bytes, n);
        used += n;
    }
    if (r->at == r->end) return fail(r, "the text ends inside a string");
    r->at++;
    if (out) out[used] = 0;
    return true;
}

bool json_string(json_reader *r, char *out, size_t size)
{
    return string(r, out, size);
}

static bool digit(const json_reader *r)
{
    return r->at < r->end && *r->at >= '0' && *r->at <= '9';
}

bool json_uint(json_reader *r, uint64_t *out)
{
    if (r->error) return false;
    peek(r);
    const char *start = r->at;
    uint64_t value = 0;
    for (; digit(r); r->at++) {
        unsigned next = (unsigned)(*r->at - '0');
        if (value > ((uint64_t)INT64_MAX - next) / 10) return fail(r, "a number is too large");
        value = value * 10 + next;
    }
    bool integer = r->at > start && !(*start == '0' && r->at > start + 1);
    if (!integer || (r->at < r->end && strchr(".eE", *r->at) && *r->at)) return fail(r, "a whole number was expected");
    *out = value;
    return true;
}

static bool skip_digits(json_reader *r)
{
    if (!digit(r)) return fail(r, "a digit was expected");
    while (digit(r)) r->at++;
    return true;
}

static bool skip_number(json_reader *r)
{
    if (*r->at == '-') r->at++;
    if (r->at < r->end && *r->at == '0') {
        r->at++;
    } else if (!skip_digits(r)) {
        return false;
    }
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (!skip_digits(r)) return false;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
        return skip_digits(r);
    }
    return true;
}

static bool skip_word(json_reader *r)
{
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(r->end - r->at) >= n && memcmp(r->at, words[i], n) == 0) {
            r->at += n;
            return true;
        }
    }
    return fail(r, "a value was expected");
}

bool json_skip(json_reader *r)
{
    if (r->error) return false;
    bool first = true;
    switch (peek(r)) {
    case '"': return string(r, NULL, 0);
    case '{':
        if (!json_object(r)) return false;
        while (more(r, &first, '}', "',' or '}' was expected") && string(r, NULL, 0)
            && expect(r, ':', "':' was expected"))
            json_skip(r);
        return !r->error;
    case '[':
        if (!json_array(r)) return false;
        while (json_item(r, &first)) json_skip(r);
        return !r->error;
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        return skip_number(r);
    default: return skip_word(r);
    }
}

bool json_finish(json_reader *r)
{
    if (r->error) return false;
    peek(r);
    return r->at == r->end || fail(r, "something follows the value");
}
