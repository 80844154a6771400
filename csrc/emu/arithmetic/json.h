/* A strict pull reader for JSON in memory: what a safetensors header needs, nothing is allocated.
 *
 * The first error sticks: every later call fails, `error` says what was wrong and `at` where. Nesting is limited to 32.
 */
#ifndef AXPRESS_EMU_JSON_H
#define AXPRESS_EMU_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct json_reader {
    const char *start, *at, *end;
    const char *error; /* NULL while all is well */
    int depth;
} json_reader;

void json_open(json_reader *r, const char *text, size_t size);

/* '{': true inside. Then `bool first = true; while (json_key(r, &first, key, sizeof key)) { read the value }`; the
 * closing '}' is consumed by the call that returns false. The same for arrays. */
bool json_object(json_reader *r);
bool json_key(json_reader *r, bool *first, char *key, size_t size);
bool json_array(json_reader *r);
bool json_item(json_reader *r, bool *first);

/* A string, unescaped to UTF-8, terminated; one that does not fit (or holds a NUL) is an error. */
bool json_string(json_reader *r, char *out, size_t size);
/* An integer from 0 to 2^63 - 1 without sign, fraction or exponent. */
bool json_uint(json_reader *r, uint64_t *out);
/* Any value, thrown away. */
bool json_skip(json_reader *r);
/* Nothing but white space is left. */
bool json_finish(json_reader *r);

#endif
