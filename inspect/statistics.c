#include "inspect/statistics.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "common/team_work.h"
#include "inspect/scan_values.h"

enum { CHUNK = 1 << 20 }; /* bytes that a worker reads at once; fits the second-level cache */

void tensor_statistics_free(struct tensor_statistics *statistics) {
    if (!statistics)
        return;
    free(statistics->codes.counts);
    free(statistics);
}

double code_entropy(const uint64_t *counts, size_t count) {
    double total = 0, entropy = 0;
    for (size_t i = 0; i < count; i++)
        total += (double)counts[i];
    for (size_t i = 0; i < count; i++)
        if (counts[i] > 0)
            entropy -= (double)counts[i] / total * log2((double)counts[i] / total);
    return entropy;
}

double element_decode(enum dtype dtype, const void *bytes) {
    uint16_t half;
    float single;
    double wide;
    memcpy(&half, bytes, dtype_bits(dtype) >= 16 ? sizeof half : 1);
    switch (dtype) {
    case DTYPE_BF16:
        return (double)bf16_decode(half);
    case DTYPE_F16:
        return (double)f16_decode(half);
    case DTYPE_F32:
        memcpy(&single, bytes, sizeof single);
        return (double)single;
    case DTYPE_F64:
        memcpy(&wide, bytes, sizeof wide);
        return wide;
    case DTYPE_F8_E4M3:
        return (double)fp8_e4m3_decode(*(const uint8_t *)bytes);
    case DTYPE_F8_E5M2:
        return (double)fp8_e5m2_decode(*(const uint8_t *)bytes);
    case DTYPE_F8_E8M0:
        return (double)e8m0_decode(*(const uint8_t *)bytes);
    default:
        return NAN;
    }
}

/* ---- which tensors, and how ---- */

static bool is_mx_scale(const struct inspection *inspection, uint32_t tensor) {
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[tensor]];
    enum part part = (enum part)inspection->modules.part_of[tensor];
    return (part == PART_SCALE || part == PART_SCALE_INV) &&
           inspection->checkpoint.tensors[tensor].info.dtype == DTYPE_U8 &&
           (module->format == STORED_MXFP4 || module->format == STORED_MXFP8 || module->format == STORED_GPT_OSS_MXFP4);
}

static bool holds_fp4(const struct inspection *inspection, uint32_t tensor) {
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[tensor]];
    bool fp4 = module->format == STORED_MXFP4 || module->format == STORED_NVFP4 ||
               module->format == STORED_MODELOPT_NVFP4 || module->format == STORED_GPT_OSS_MXFP4;
    return fp4 && inspection->checkpoint.tensors[tensor].info.dtype == DTYPE_U8 &&
           module_weight(&inspection->checkpoint, module) == &inspection->checkpoint.tensors[tensor];
}

static bool kind_of(const struct inspection *inspection, uint32_t tensor, enum statistics_kind *kind) {
    enum dtype dtype = inspection->checkpoint.tensors[tensor].info.dtype;
    if (dtype == DTYPE_F8_E8M0 || is_mx_scale(inspection, tensor))
        *kind = STATISTICS_E8M0;
    else if (holds_fp4(inspection, tensor))
        *kind = STATISTICS_FP4;
    else if (dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32 || dtype == DTYPE_F64)
        *kind = STATISTICS_FLOAT;
    else if (dtype == DTYPE_F8_E4M3)
        *kind = STATISTICS_FP8;
    else if (dtype == DTYPE_I8)
        *kind = STATISTICS_INT8;
    else
        return false;
    return true;
}

static bool is_scale_part(enum part part) {
    return part == PART_SCALE || part == PART_SCALE_INV || part == PART_SCALE_2 || part == PART_GLOBAL_SCALE ||
           part == PART_INPUT_SCALE || part == PART_INPUT_GLOBAL_SCALE;
}

/* ---- gathering ---- */

struct piece {
    uint32_t tensor;
    uint64_t offset, size;
};

struct gathering {
    struct inspection *inspection;
    struct piece *pieces;
    uint8_t *buffers; /* one chunk per thread */
    struct team_work work;
    pthread_mutex_t lock; /* of the statistics */
};

static bool codes_add(struct code_counts *codes, unsigned code, uint64_t count) {
    unsigned first = codes->count && codes->first < code ? codes->first : code;
    unsigned end = codes->first + codes->count > code + 1 ? codes->first + codes->count : code + 1;
    if (end - first != codes->count) {
        uint64_t *counts = calloc(end - first, sizeof *counts);
        if (!counts)
            return false;
        for (unsigned i = 0; i < codes->count; i++)
            counts[codes->first + i - first] = codes->counts[i];
        free(codes->counts);
        *codes = (struct code_counts){first, end - first, counts};
    }
    codes->counts[code - codes->first] += count;
    return true;
}

static void extremes_merge(struct tensor_statistics *total, double min, double max) {
    total->min = fmin(total->min, min); /* fmin and fmax pass NaN over */
    total->max = fmax(total->max, max);
}

static bool merge_bytes(struct tensor_statistics *total, const uint64_t counts[256]) {
    bool good = true;
    for (unsigned code = 0; code < 256 && good; code++) {
        uint64_t count = counts[code];
        if (count == 0)
            continue;
        switch (total->kind) {
        case STATISTICS_FP4:
            total->fp4[code & 15] += count;
            total->fp4[code >> 4] += count;
            total->zero += count * (uint64_t)(((code & 7) == 0) + ((code >> 4 & 7) == 0));
            total->saturated += count * (uint64_t)(((code & 7) == 7) + ((code >> 4 & 7) == 7));
            break;
        case STATISTICS_E8M0:
            total->nan += code == 255 ? count : 0;
            good = codes_add(&total->codes, code, count);
            if (code != 255)
                extremes_merge(total, ldexp(1.0, (int)code - 127), ldexp(1.0, (int)code - 127));
            break;
        case STATISTICS_FP8:
            if ((code & 0x7f) == 0x7f) {
                total->nan += count;
                break;
            }
            total->zero += (code & 0x7f) == 0 ? count : 0;
            total->saturated += (code & 0x7f) == 0x7e ? count : 0;
            total->negative += code > 0x80 ? count : 0;
            total->subnormal += (code & 0x78) == 0 && (code & 7) ? count : 0;
            good = codes_add(&total->codes, code >> 3 & 15, count);
            extremes_merge(total, (double)fp8_e4m3_decode((uint8_t)code), (double)fp8_e4m3_decode((uint8_t)code));
            break;
        default:
            total->zero += code == 0 ? count : 0;
            extremes_merge(total, (double)(int8_t)code, (double)(int8_t)code);
        }
    }
    return good;
}

static bool chunk_merge(struct tensor_statistics *total, enum dtype dtype, const uint8_t *bytes, size_t size) {
    if (total->kind != STATISTICS_FLOAT) {
        uint64_t counts[256];
        bytes_count(bytes, size, counts);
        total->elements += total->kind == STATISTICS_FP4 ? 2 * size : size;
        return merge_bytes(total, counts);
    }
    struct float_scan scan;
    floats_scan(dtype, bytes, size, &scan);
    total->elements += scan.elements;
    total->nan += scan.nan;
    total->infinite += scan.infinite;
    total->zero += scan.zero;
    total->subnormal += scan.subnormal;
    total->negative += scan.negative;
    extremes_merge(total, scan.min, scan.max);
    return true;
}

/* Reads and scans one piece by itself, then adds it to the tensor's. */
static enum status piece_gather(void *context, size_t number, unsigned thread, struct error *error) {
    struct gathering *gathering = context;
    struct inspection *inspection = gathering->inspection;
    const struct piece *piece = &gathering->pieces[number];
    const struct tensor *tensor = &inspection->checkpoint.tensors[piece->tensor];
    struct tensor_statistics *total = inspection->statistics[piece->tensor];
    uint8_t *buffer = gathering->buffers + (size_t)thread * CHUNK;
    struct tensor_statistics part = {.kind = total->kind, .min = NAN, .max = NAN};
    enum status status =
        checkpoint_read(&inspection->checkpoint, tensor, piece->offset, buffer, (size_t)piece->size, error);
    if (status != STATUS_OK)
        return status;
    bool good = chunk_merge(&part, tensor->info.dtype, buffer, (size_t)piece->size);
    pthread_mutex_lock(&gathering->lock);
    total->elements += part.elements;
    total->nan += part.nan;
    total->infinite += part.infinite;
    total->zero += part.zero;
    total->subnormal += part.subnormal;
    total->negative += part.negative;
    total->saturated += part.saturated;
    extremes_merge(total, part.min, part.max);
    for (int i = 0; i < 16; i++)
        total->fp4[i] += part.fp4[i];
    for (unsigned i = 0; i < part.codes.count && good; i++)
        if (part.codes.counts[i] > 0)
            good = codes_add(&total->codes, part.codes.first + i, part.codes.counts[i]);
    pthread_mutex_unlock(&gathering->lock);
    free(part.codes.counts);
    return good ? team_work_advance(&gathering->work, piece->size, error) : error_set_memory(error);
}

/* The pieces, in the order of the data; counts them when `pieces` is NULL. */
static size_t pieces_list(const struct inspection *inspection, struct piece *pieces) {
    size_t count = 0;
    for (uint32_t i = 0; i < inspection->checkpoint.tensor_count; i++) {
        uint64_t size = inspection->checkpoint.tensors[i].info.size;
        for (uint64_t offset = 0; inspection->statistics[i] && offset < size; offset += CHUNK) {
            if (pieces)
                pieces[count] = (struct piece){i, offset, size - offset < CHUNK ? size - offset : CHUNK};
            count++;
        }
    }
    return count;
}

static enum status tensors_choose(struct inspection *inspection, const bool *chosen,
                                  const struct statistics_options *options, uint64_t *bytes, struct error *error) {
    size_t count = inspection->checkpoint.tensor_count;
    inspection->statistics = calloc(count + 1, sizeof(void *));
    if (!inspection->statistics)
        return error_set_memory(error);
    for (uint32_t i = 0; i < count; i++) {
        enum statistics_kind kind;
        bool scale = is_scale_part((enum part)inspection->modules.part_of[i]);
        if ((chosen && !chosen[i]) || (options->scales_only && !scale) || !kind_of(inspection, i, &kind))
            continue;
        struct tensor_statistics *statistics = calloc(1, sizeof *statistics);
        if (!statistics)
            return error_set_memory(error);
        *statistics = (struct tensor_statistics){.kind = kind, .min = NAN, .max = NAN};
        inspection->statistics[i] = statistics;
        *bytes += inspection->checkpoint.tensors[i].info.size;
    }
    return STATUS_OK;
}

enum status statistics_gather(struct inspection *inspection, const bool *chosen,
                              const struct statistics_options *options, struct error *error) {
    uint64_t bytes = 0;
    enum status status = tensors_choose(inspection, chosen, options, &bytes, error);
    if (status != STATUS_OK)
        return status;
    const size_t count = pieces_list(inspection, NULL);
    const unsigned threads = options->jobs < count ? options->jobs : (unsigned)count;
    struct gathering gathering = {.inspection = inspection,
                                  .pieces = malloc((count + 1) * sizeof *gathering.pieces),
                                  .buffers = malloc((size_t)threads * CHUNK + 1),
                                  .work = {.function = piece_gather,
                                           .context = &gathering,
                                           .count = count,
                                           .threads = threads,
                                           .verb = "reading",
                                           .bytes = bytes,
                                           .quiet = options->quiet}};
    pthread_mutex_init(&gathering.lock, NULL);
    if (gathering.pieces && gathering.buffers) {
        pieces_list(inspection, gathering.pieces);
        status = team_work_run(&gathering.work, error);
    } else {
        status = error_set_memory(error);
    }
    pthread_mutex_destroy(&gathering.lock);
    free(gathering.pieces);
    free(gathering.buffers);
    return status;
}
