/* Masks in exact-size buffers: all widths and histories of a range against a plain statement of the rules, and
 * refused input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mask.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

enum { MOST = 12 };

static uint64_t state = 88172645463325252u;

static int32_t below(int32_t limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int32_t)(state % (uint64_t)limit);
}

/* A step of `count` queries in exactly as much memory as it needs. */
typedef struct step {
    int32_t width, history, count, num_views;
    ax_query *queries;
    int32_t *runs, *views;
} step;

static step random_step(int32_t width, int32_t history) {
    step s = {.width = width, .history = history, .count = 1 + below(width), .num_views = 1 + below(3)};
    int32_t num_runs = s.num_views * 2;
    s.queries = calloc((size_t)s.count, sizeof *s.queries);
    s.runs = malloc((size_t)num_runs * 2 * sizeof *s.runs);
    s.views = malloc(((size_t)s.num_views + 1) * sizeof *s.views);
    CHECK(s.queries && s.runs && s.views);
    for (int32_t r = 0; r < num_runs; r++) {
        int32_t a = below(history + 1), b = below(history + 1);
        s.runs[2 * r] = a < b ? a : b, s.runs[2 * r + 1] = a < b ? b : a;
    }
    for (int32_t v = 0; v <= s.num_views; v++) s.views[v] = 2 * v;
    for (int32_t i = 0; i < s.count; i++)
        s.queries[i] = (ax_query){.parent = below(i + 1) - 1, .view = below(s.num_views)};
    return s;
}

static void drop(step *s) {
    free(s->queries);
    free(s->runs);
    free(s->views);
}

static int fill(const step *s, uint16_t *mask) {
    return ax_mask_fill(mask, s->width, s->history, s->queries, s->count, s->runs, s->views, s->num_views);
}

static int sees(const step *s, int32_t i, int32_t column) {
    if (column == s->history + i) return 1;
    if (i >= s->count) return 0;
    const ax_query *q = &s->queries[i];
    if (column >= s->history) return q->parent >= 0 && sees(s, q->parent, column);
    for (int32_t r = s->views[q->view]; r < s->views[q->view + 1]; r++)
        if (s->runs[2 * r] <= column && column < s->runs[2 * r + 1]) return 1;
    return 0;
}

static void check_step(const step *s) {
    int32_t stride = s->history + s->width;
    size_t cells = (size_t)s->width * (size_t)stride;
    uint16_t *mask = malloc(cells * sizeof *mask);
    CHECK(mask && fill(s, mask) == 0);
    for (size_t c = 0; c < cells; c++) {
        int32_t i = (int32_t)c / stride, column = (int32_t)c % stride;
        uint16_t seen = i < s->count ? 0 : AX_MASK_PADDING;
        CHECK(mask[c] == (sees(s, i, column) ? seen : AX_MASK_HIDDEN));
    }
    free(mask);
}

static void wrong_steps_are_refused(void) {
    uint16_t mask[2 * 6];
    ax_query queries[2] = {{.parent = -1}, {.parent = 0}};
    int32_t runs[2] = {0, 4}, views[2] = {0, 1};
    const step good = {2, 4, 2, 1, queries, runs, views};
    step s = good;
    CHECK(fill(&s, mask) == 0);
    s.width = 0;
    CHECK(fill(&s, mask) == -1);
    s = good, s.history = -1;
    CHECK(fill(&s, mask) == -1);
    s = good, s.count = 3;
    CHECK(fill(&s, mask) == -1);
    s = good, s.count = -1;
    CHECK(fill(&s, mask) == -1);
    static const int32_t bad_runs[][2] = {{0, 5}, {-1, 2}, {3, 2}, {5, 5}, {0, INT32_MAX}, {INT32_MIN, INT32_MIN}};
    for (size_t i = 0; i < sizeof bad_runs / sizeof *bad_runs; i++) {
        memcpy(runs, bad_runs[i], sizeof runs);
        CHECK(fill(&good, mask) == -1);
    }
    memcpy(runs, (int32_t[]){0, 4}, sizeof runs);
    static const int32_t bad_views[] = {-1, 1, INT32_MAX, INT32_MIN}, bad_parents[] = {1, 2, INT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        queries[0].view = bad_views[i];
        CHECK(fill(&good, mask) == -1);
    }
    queries[0].view = 0;
    for (size_t i = 0; i < 3; i++) {
        queries[1].parent = bad_parents[i];
        CHECK(fill(&good, mask) == -1);
    }
}

int main(void) {
    for (int32_t width = 1; width <= MOST; width++) {
        for (int32_t history = 0; history <= 2 * MOST; history++) {
            step s = random_step(width, history);
            check_step(&s);
            drop(&s);
        }
    }
    wrong_steps_are_refused();
    puts("ok");
    return 0;
}
