/* Reading the header of a simulated axmodel: what was read so far, and complaints about it. */
#ifndef AXPRESS_EMU_METADATA_H
#define AXPRESS_EMU_METADATA_H

#include "json.h"
#include "model_impl.h"

typedef struct emu_reading {
    emu_header *header;
    const char *name; /* of the file */
    char *err;
    uint64_t data_start, file_size;
    bool seen[96]; /* metadata keys */
    char format[32], kind[16], dtype[16], p0_width[16], gives[16];
    char layer_kind[16];
    int gated;
    int interleaved;
    double hollow;
} emu_reading;

/* A sentence about the file, into `err`; -1. */
int emu_complain(const emu_reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reads the map of metadata, whose keys are known or of later versions; 0, or -1 with a complaint. An error of JSON
 * itself is the caller's to find. */
int emu_read_metadata(emu_reading *r, json_reader *json);

#endif
