#include "mask.h"

#include <string.h>

static void fill(uint16_t *out, uint16_t value, int32_t count) {
    for (int32_t i = 0; i < count; i++) out[i] = value;
}

/* The history part of one query: hidden, then every run of its view made visible. */
static int show_rows(uint16_t *line, int32_t history, const int32_t *runs, int32_t first, int32_t last) {
    fill(line, AX_MASK_HIDDEN, history);
    for (int32_t r = first; r < last; r++) {
        int32_t start = runs[2 * r], stop = runs[2 * r + 1];
        if (start < 0 || stop < start || stop > history) return -1;
        memset(line + start, 0, (size_t)(stop - start) * sizeof *line);
    }
    return 0;
}

int ax_mask_fill(uint16_t *mask, int32_t width, int32_t history, const ax_query *queries, int32_t num_queries,
                 const int32_t *runs, const int32_t *views, int32_t num_views) {
    const int64_t stride = (int64_t)history + width;
    if (width < 1 || history < 0 || num_queries < 0 || num_queries > width) return -1;
    for (int32_t i = 0; i < width; i++) {
        uint16_t *line = mask + i * stride;
        uint16_t *own = line + history;
        if (i >= num_queries) {
            fill(line, AX_MASK_HIDDEN, (int32_t)stride);
            own[i] = AX_MASK_PADDING;
            continue;
        }
        const ax_query *q = &queries[i];
        if (q->view < 0 || q->view >= num_views || q->parent >= i) return -1;
        if (i > 0 && q->parent >= 0 && queries[q->parent].view == q->view) {
            memcpy(line, mask + q->parent * stride, (size_t)history * sizeof *line);
        } else if (show_rows(line, history, runs, views[q->view], views[q->view + 1]) != 0) {
            return -1;
        }
        if (q->parent >= 0) {
            memcpy(own, mask + q->parent * stride + history, (size_t)width * sizeof *own);
        } else {
            fill(own, AX_MASK_HIDDEN, width);
        }
        own[i] = 0;
    }
    return 0;
}

void ax_mask_window(uint16_t *windowed, const uint16_t *mask, int32_t width, int32_t history, const ax_query *queries,
                    int32_t num_queries, const int32_t *positions, int32_t window) {
    const size_t stride = (size_t)history + (size_t)width;
    memcpy(windowed, mask, (size_t)width * stride * sizeof *mask);
    for (int32_t i = 0; i < num_queries; i++) {
        uint16_t *line = windowed + (size_t)i * stride;
        int32_t oldest = queries[i].position - window + 1;
        if (oldest <= 0) continue;
        for (int32_t r = 0; r < history; r++) line[r] = positions[r] < oldest ? AX_MASK_HIDDEN : line[r];
        for (int32_t j = 0; j < i; j++) {
            if (queries[j].position < oldest) line[history + j] = AX_MASK_HIDDEN;
        }
    }
}
