#include "inspect/show.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "inspect/statistics.h"

enum {
    UNSCALED_BLOCK = 32, /* values in a piece of a row where no scale cuts it */
    MX_BLOCK = 32,
    NVFP4_BLOCK = 16,
    BLOCK_MAX = 1 << 20, /* a scale that covers more is taken for a broken file */
};

enum coding { CODING_DTYPE, CODING_E2M1, CODING_E8M0, CODING_OFFSET_INT };

/* How the values of a tensor lie in its bytes: rows of `row_bytes`, codes of shown.code_bits, the low bits first. */
struct decoder {
    const struct inspection *inspection;
    const struct module *module; /* NULL: a tensor by itself */
    struct shown *shown;
    enum coding coding;
    unsigned leading_rank; /* dimensions before the matrix */
    uint64_t row_bytes;
    uint64_t nominal_block;             /* values for a scale as the format says; 0: as the scale's shape says */
    uint64_t scale_rows, scale_columns; /* of the scale, for one expert */
    uint64_t scale_stride;              /* elements of the scale for one expert; 0: all share them */
    uint64_t block_rows;
    bool divides; /* by the global scale, as compressed-tensors has it */
};

static uint64_t ratio_up(uint64_t whole, uint64_t part) { return part == 0 ? 0 : whole / part + (whole % part != 0); }

/* ---- what is asked for ---- */

struct place {
    uint64_t indices[TENSOR_MAX_RANK + 2];
    unsigned count;
};

static bool indices_parse(const char *text, struct place *place) {
    const char *at = text + 1;
    for (place->count = 0; place->count < sizeof place->indices / sizeof *place->indices;) {
        char *end;
        at += strspn(at, " ");
        if (*at < '0' || *at > '9')
            return false;
        errno = 0;
        place->indices[place->count++] = strtoull(at, &end, 10);
        at = end + strspn(end, " ");
        if (errno || (*at != ',' && strcmp(at, "]") != 0))
            return false;
        if (*at++ == ']')
            return true;
    }
    return false;
}

static const struct module *module_find(const struct inspection *inspection, const char *name) {
    size_t length = strlen(name);
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        if (module->name_length == length && memcmp(module->name, name, length) == 0)
            return module;
    }
    return NULL;
}

static bool name_find(const struct inspection *inspection, const char *name, struct decoder *decoder) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    const struct tensor *tensor = checkpoint_find(checkpoint, name);
    const struct module *module =
        tensor ? &inspection->modules.items[inspection->modules.of_tensor[tensor - checkpoint->tensors]]
               : module_find(inspection, name);
    const struct tensor *weight = module ? module_weight(checkpoint, module) : NULL;
    decoder->shown->tensor = tensor ? tensor : weight;
    decoder->module = decoder->shown->tensor == weight ? module : NULL;
    return decoder->shown->tensor != NULL;
}

/* A name may hold brackets itself, so the whole request is tried as one first. */
static enum status request_parse(const struct inspection *inspection, const char *request, struct decoder *decoder,
                                 struct place *place, struct error *error) {
    const char *bracket = text_ends_with(request, "]") ? strrchr(request, '[') : NULL;
    *place = (struct place){0};
    if (name_find(inspection, request, decoder))
        return STATUS_OK;
    if (bracket && !indices_parse(bracket, place))
        return error_set(error, STATUS_USAGE, "'%s': the brackets take a row and a block, as in [3, 0]", request);
    char *name = strndup(request, bracket ? (size_t)(bracket - request) : strlen(request));
    if (!name)
        return error_set_memory(error);
    bool found = name_find(inspection, name, decoder);
    enum status status =
        found ? STATUS_OK : error_set(error, STATUS_USAGE, "there is no tensor or module '%s' with values", name);
    free(name);
    return status;
}

/* ---- how it is stored ---- */

static enum status not_decoded(const struct shown *shown, const char *why, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT, "'%s' (%s, %s) is not decoded: %s", shown->tensor->info.name,
                     shown->format, dtype_name(shown->tensor->info.dtype), why);
}

static bool dtype_is_decoded(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F4:
    case DTYPE_F6_E2M3:
    case DTYPE_F6_E3M2:
    case DTYPE_F8_E4M3FNUZ:
    case DTYPE_F8_E5M2FNUZ:
    case DTYPE_C64:
        return false;
    default:
        return dtype < DTYPES;
    }
}

static bool is_real_dtype(enum dtype dtype) {
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32 || dtype == DTYPE_F64;
}

static bool is_exponent_dtype(enum dtype dtype) { return dtype == DTYPE_U8 || dtype == DTYPE_F8_E8M0; }

/* The scales of MX formats, stored as U8, are exponents; asked for by their own name too. */
static bool is_exponent_tensor(const struct inspection *inspection, const struct tensor *tensor) {
    size_t number = (size_t)(tensor - inspection->checkpoint.tensors);
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[number]];
    bool mx =
        module->format == STORED_MXFP4 || module->format == STORED_MXFP8 || module->format == STORED_GPT_OSS_MXFP4;
    return tensor->info.dtype == DTYPE_U8 && mx && module_scale(&inspection->checkpoint, module) == tensor;
}

static enum status integer_read(const struct checkpoint *checkpoint, const struct tensor *tensor, uint64_t element,
                                uint64_t *number, struct error *error) {
    size_t size = dtype_bits(tensor->info.dtype) / 8;
    *number = 0; /* little-endian, as safetensors is */
    return checkpoint_read(checkpoint, tensor, element * size, number, size, error);
}

/* pack-quantized: the columns are those of weight_shape, and with them the width of the codes is known. */
static enum status packed_int_describe(struct decoder *decoder, struct error *error) {
    struct shown *shown = decoder->shown;
    const struct checkpoint *checkpoint = &decoder->inspection->checkpoint;
    const struct tensor *shape = module_part(checkpoint, decoder->module, PART_SHAPE);
    const struct tensor_info *info = &shown->tensor->info;
    uint64_t elements = 0, packed = info->rank > 0 ? info->shape[info->rank - 1] : 1;
    if (!shape || (shape->info.dtype != DTYPE_I64 && shape->info.dtype != DTYPE_I32) ||
        !shape_elements(shape->info.shape, shape->info.rank, &elements) || elements == 0)
        return not_decoded(shown, "there is no weight_shape, which tells how many bits a value has", error);
    if (module_part(checkpoint, decoder->module, PART_ZERO_POINT))
        return not_decoded(shown, "it has zero points", error);
    if (module_part(checkpoint, decoder->module, PART_G_IDX))
        return not_decoded(shown, "its columns are reordered (weight_g_idx)", error);
    enum status status = integer_read(checkpoint, shape, elements - 1, &shown->columns, error);
    if (status != STATUS_OK)
        return status;
    for (unsigned bits = 8; bits >= 4; bits -= 4) /* the narrower one where both fit */
        if (ratio_up(shown->columns, 32 / bits) == packed)
            shown->code_bits = bits;
    if (shown->code_bits == 0 || shown->columns == 0)
        return not_decoded(shown, "weight_shape and the packed width fit neither 4 nor 8 bits", error);
    decoder->coding = CODING_OFFSET_INT;
    decoder->row_bytes = packed * 4;
    shown->dtype = shown->code_bits == 4 ? "INT4" : "INT8";
    return STATUS_OK;
}

static enum status fp4_describe(struct decoder *decoder, struct error *error) {
    struct shown *shown = decoder->shown;
    const struct tensor_info *info = &shown->tensor->info;
    bool blocks = decoder->module->format == STORED_GPT_OSS_MXFP4;
    if (info->dtype != DTYPE_U8)
        return not_decoded(shown, "two codes a byte need U8", error);
    if (blocks && (info->rank != 4 || info->shape[3] != MX_BLOCK / 2))
        return not_decoded(shown, "blocks are [experts, out, in / 32, 16]", error);
    decoder->coding = CODING_E2M1;
    decoder->row_bytes = shown->columns / 2;
    decoder->leading_rank -= blocks;
    shown->code_bits = 4;
    shown->dtype = "E2M1";
    return STATUS_OK;
}

static enum status weight_describe(struct decoder *decoder, struct error *error) {
    const struct checkpoint *checkpoint = &decoder->inspection->checkpoint;
    const struct module *module = decoder->module;
    struct shown *shown = decoder->shown;
    shown->format = stored_format_name(module->format);
    shown->leading = module->experts;
    shown->rows = module->rows;
    shown->columns = module->columns;
    shown->scale = module_scale(checkpoint, module);
    shown->is_expert = module->role == ROLE_EXPERT;
    switch (module->format) {
    case STORED_MXFP4:
    case STORED_GPT_OSS_MXFP4:
        decoder->nominal_block = MX_BLOCK;
        return fp4_describe(decoder, error);
    case STORED_NVFP4:
    case STORED_MODELOPT_NVFP4:
        decoder->nominal_block = NVFP4_BLOCK;
        decoder->divides = module->format == STORED_NVFP4;
        shown->global = module_part(checkpoint, module, decoder->divides ? PART_GLOBAL_SCALE : PART_SCALE_2);
        if (!shown->global)
            return not_decoded(shown, "its global scale is missing", error);
        return fp4_describe(decoder, error);
    case STORED_INT_PACKED:
        return packed_int_describe(decoder, error);
    case STORED_INT8:
        if (module_part(checkpoint, module, PART_ZERO_POINT))
            return not_decoded(shown, "it has zero points", error);
        return STATUS_OK;
    case STORED_PLAIN:
    case STORED_FP8_UNSCALED:
        shown->scale = NULL;
        return STATUS_OK;
    case STORED_MXFP8:
        decoder->nominal_block = MX_BLOCK;
        return STATUS_OK;
    case STORED_FP8_BLOCK:
        decoder->nominal_block = module->block_columns;
        decoder->block_rows = module->block_rows;
        return STATUS_OK;
    case STORED_FP8_TENSOR:
    case STORED_FP8_CHANNEL:
        return STATUS_OK;
    default:
        return not_decoded(shown, "its codes are stored in a layout that is not known here", error);
    }
}

/* Which element of the scale belongs to which block. */
static enum status scale_describe(struct decoder *decoder, struct error *error) {
    struct shown *shown = decoder->shown;
    const struct tensor_info *info = &shown->scale->info;
    uint64_t elements;
    if (!is_real_dtype(info->dtype) && !is_exponent_dtype(info->dtype) && info->dtype != DTYPE_F8_E4M3)
        return not_decoded(shown, "the scale's dtype is none of scales", error);
    if (!shape_elements(info->shape, info->rank, &elements) || elements == 0)
        return not_decoded(shown, "the scale is empty", error);
    shown->scale_bits = dtype_bits(info->dtype);
    decoder->scale_stride = shown->leading > 1 && elements % shown->leading == 0 ? elements / shown->leading : 0;
    uint64_t own = decoder->scale_stride ? decoder->scale_stride : elements;
    decoder->scale_columns = info->rank > 0 ? info->shape[info->rank - 1] : 1;
    if (own == 1 || (info->rank < 2 && own == shown->rows) || decoder->scale_columns == 0 ||
        own % decoder->scale_columns != 0)
        decoder->scale_columns = 1;
    decoder->scale_rows = own / decoder->scale_columns;
    if (decoder->block_rows == 0 || own == 1)
        decoder->block_rows = own == 1 ? UINT64_MAX : 1;
    if (decoder->nominal_block > 0 && ratio_up(shown->columns, decoder->nominal_block) == decoder->scale_columns)
        shown->block_columns = decoder->nominal_block;
    else if (decoder->scale_columns > 1 || decoder->nominal_block > 0)
        shown->block_columns = ratio_up(shown->columns, decoder->scale_columns);
    if (shown->block_columns > BLOCK_MAX || (decoder->block_rows == 1 && decoder->scale_rows != shown->rows))
        return not_decoded(shown, "the scale's shape does not fit the weight's", error);
    return STATUS_OK;
}

static enum status decoder_describe(struct decoder *decoder, struct error *error) {
    struct shown *shown = decoder->shown;
    const struct tensor_info *info = &shown->tensor->info;
    shown->format = "plain";
    shown->dtype = dtype_name(info->dtype);
    shown->leading = shown->rows = shown->columns = 1;
    decoder->leading_rank = info->rank > 2 ? info->rank - 2 : 0;
    for (unsigned i = 0; i < decoder->leading_rank; i++)
        shown->leading *= info->shape[i]; /* cannot overflow where there are values at all */
    if (info->rank > 1)
        shown->rows = info->shape[info->rank - 2];
    if (info->rank > 0)
        shown->columns = info->shape[info->rank - 1];
    if (!decoder->module && is_exponent_tensor(decoder->inspection, shown->tensor)) {
        decoder->coding = CODING_E8M0;
        shown->dtype = "E8M0";
    }
    enum status status = decoder->module ? weight_describe(decoder, error) : STATUS_OK;
    if (status != STATUS_OK)
        return status;
    if (shown->code_bits == 0) { /* codes are the tensor's elements */
        if (!dtype_is_decoded(info->dtype))
            return not_decoded(shown, "the dtype is not known how to read", error);
        shown->code_bits = dtype_bits(info->dtype);
        decoder->row_bytes = shown->columns * (shown->code_bits / 8);
    }
    bool wants_scale =
        decoder->module && module_is_quantized(decoder->module) && decoder->module->format != STORED_FP8_UNSCALED;
    if (wants_scale && !shown->scale)
        return not_decoded(shown, "its scale is missing", error);
    if (shown->scale && info->size > 0)
        status = scale_describe(decoder, error);
    if (shown->block_columns == 0)
        shown->block_columns = UNSCALED_BLOCK;
    shown->block_count = ratio_up(shown->columns, shown->block_columns);
    return status;
}

/* ---- reading ---- */

static double code_decode(const struct decoder *decoder, uint64_t code) {
    enum dtype dtype = decoder->shown->tensor->info.dtype;
    switch (decoder->coding) {
    case CODING_E2M1:
        return (double)e2m1_decode((uint8_t)code);
    case CODING_E8M0:
        return (double)e8m0_decode((uint8_t)code);
    case CODING_OFFSET_INT:
        return (double)code - (double)(1u << (decoder->shown->code_bits - 1));
    default:
        break;
    }
    switch (dtype) {
    case DTYPE_I8:
        return (double)(int8_t)code;
    case DTYPE_I16:
        return (double)(int16_t)code;
    case DTYPE_I32:
        return (double)(int32_t)code;
    case DTYPE_I64:
        return (double)(int64_t)code;
    case DTYPE_BOOL:
    case DTYPE_U8:
    case DTYPE_U16:
    case DTYPE_U32:
    case DTYPE_U64:
        return (double)code;
    default:
        return element_decode(dtype, &code);
    }
}

static double scale_decode(enum dtype dtype, const void *bytes) {
    return dtype == DTYPE_U8 ? (double)e8m0_decode(*(const uint8_t *)bytes) : element_decode(dtype, bytes);
}

static enum status global_read(struct decoder *decoder, struct error *error) {
    struct shown *shown = decoder->shown;
    uint64_t elements, code;
    if (!is_real_dtype(shown->global->info.dtype) ||
        !shape_elements(shown->global->info.shape, shown->global->info.rank, &elements) || elements == 0)
        return not_decoded(shown, "its global scale is no number", error);
    uint64_t element = elements == shown->leading ? shown->matrix : 0;
    enum status status = integer_read(&decoder->inspection->checkpoint, shown->global, element, &code, error);
    if (status == STATUS_OK)
        shown->global_value = element_decode(shown->global->info.dtype, &code);
    return status;
}

static enum status scale_read(const struct decoder *decoder, struct shown_block *block, struct error *error) {
    const struct shown *shown = decoder->shown;
    uint64_t row = shown->row / decoder->block_rows, code;
    uint64_t column = decoder->scale_columns > 1 ? block->number : 0;
    if (row >= decoder->scale_rows || column >= decoder->scale_columns)
        return not_decoded(shown, "the scale's shape does not fit the weight's", error);
    block->scaled = true;
    block->scale_index = shown->matrix * decoder->scale_stride + row * decoder->scale_columns + column;
    enum status status = integer_read(&decoder->inspection->checkpoint, shown->scale, block->scale_index, &code, error);
    if (status != STATUS_OK)
        return status;
    block->scale_code = (uint32_t)code;
    block->scale = scale_decode(shown->scale->info.dtype, &code);
    block->factor = block->scale;
    if (shown->global)
        block->factor = decoder->divides ? block->scale / shown->global_value : block->scale * shown->global_value;
    return STATUS_OK;
}

/* Reads a block's codes into `codes`, their values into `decoded` and `values`. */
static enum status block_read(const struct decoder *decoder, struct shown_block *block, uint64_t *codes,
                              double *decoded, double *values, struct error *error) {
    const struct shown *shown = decoder->shown;
    uint64_t first_bit = block->first_column * shown->code_bits, bits = block->count * shown->code_bits;
    uint64_t offset = (shown->matrix * shown->rows + shown->row) * decoder->row_bytes + first_bit / 8;
    size_t size = (size_t)((first_bit % 8 + bits + 7) / 8);
    uint8_t *bytes = malloc(size);
    if (!bytes)
        return error_set_memory(error);
    enum status status = checkpoint_read(&decoder->inspection->checkpoint, shown->tensor, offset, bytes, size, error);
    block->factor = 1;
    if (status == STATUS_OK && shown->scale)
        status = scale_read(decoder, block, error);
    for (size_t i = 0; i < block->count && status == STATUS_OK; i++) {
        uint64_t bit = first_bit % 8 + i * shown->code_bits;
        codes[i] = 0;
        if (shown->code_bits == 4)
            codes[i] = bytes[bit / 8] >> bit % 8 & 15;
        else
            memcpy(&codes[i], bytes + bit / 8, shown->code_bits / 8);
        decoded[i] = code_decode(decoder, codes[i]);
        values[i] = decoded[i] * block->factor;
    }
    block->codes = codes;
    block->decoded = decoded;
    block->values = values;
    free(bytes);
    return status;
}

/* ---- the blocks ---- */

static enum status index_check(const struct shown *shown, const char *what, uint64_t index, uint64_t extent,
                               struct error *error) {
    if (index < extent)
        return STATUS_OK;
    return error_set(error, STATUS_USAGE, "'%s' has no %s %" PRIu64 ": there are %" PRIu64, shown->tensor->info.name,
                     what, index, extent);
}

/* Turns indices into expert, row and the blocks [*first, *end). */
static enum status place_resolve(const struct decoder *decoder, const struct place *place, uint64_t *first,
                                 uint64_t *end, struct error *error) {
    struct shown *shown = decoder->shown;
    unsigned leading = decoder->leading_rank;
    enum status status = STATUS_OK;
    *first = 0;
    *end = shown->block_count > 0 ? 1 : 0;
    if (place->count == 0)
        return STATUS_OK;
    if (place->count < leading + 1 || place->count > leading + 2)
        return error_set(error, STATUS_USAGE, "'%s' takes %u indices, %srow, and a block if wanted",
                         shown->tensor->info.name, leading + 1, leading ? "those before the matrix and the " : "the ");
    for (unsigned i = 0; i < leading && status == STATUS_OK; i++) {
        status = index_check(shown, shown->is_expert ? "expert" : "matrix", place->indices[i],
                             shown->tensor->info.shape[i], error);
        shown->matrix = shown->matrix * shown->tensor->info.shape[i] + place->indices[i];
    }
    shown->row = place->indices[leading];
    if (status == STATUS_OK)
        status = index_check(shown, "row", shown->row, shown->rows, error);
    *end = shown->block_count;
    if (status == STATUS_OK && place->count == leading + 2) {
        *first = place->indices[leading + 1];
        status = index_check(shown, "block", *first, shown->block_count, error);
        *end = *first + 1;
    }
    return status;
}

static enum status blocks_read(const struct decoder *decoder, uint64_t first, uint64_t end, uint64_t limit,
                               struct error *error) {
    struct shown *shown = decoder->shown;
    uint64_t most = limit / shown->block_columns > 1 ? limit / shown->block_columns : 1;
    uint64_t read_end = end - first > most ? first + most : end;
    uint64_t last_column = end == shown->block_count ? shown->columns : end * shown->block_columns;
    uint64_t read_column = read_end == shown->block_count ? shown->columns : read_end * shown->block_columns;
    size_t count = (size_t)(read_end - first), values = (size_t)(read_column - first * shown->block_columns);
    shown->left_out = last_column - read_column;
    shown->blocks = calloc(count + 1, sizeof *shown->blocks);
    shown->codes = malloc((values + 1) * sizeof *shown->codes);
    shown->numbers = malloc((values + 1) * 2 * sizeof *shown->numbers);
    if (!shown->blocks || !shown->codes || !shown->numbers)
        return error_set_memory(error);
    size_t at = 0;
    for (uint64_t number = first; number < read_end; number++) {
        struct shown_block *block = &shown->blocks[shown->count];
        uint64_t column = number * shown->block_columns, rest = shown->columns - column;
        *block = (struct shown_block){.number = number, .first_column = column};
        block->count = (size_t)(rest < shown->block_columns ? rest : shown->block_columns);
        enum status status =
            block_read(decoder, block, shown->codes + at, shown->numbers + at, shown->numbers + values + at, error);
        if (status != STATUS_OK)
            return status;
        at += block->count;
        shown->count++;
    }
    return STATUS_OK;
}

enum status show_read(const struct inspection *inspection, const char *request, uint64_t limit, struct shown *shown,
                      struct error *error) {
    *shown = (struct shown){0};
    struct decoder decoder = {.inspection = inspection, .shown = shown};
    struct place place;
    uint64_t first = 0, end = 0;
    enum status status = request_parse(inspection, request, &decoder, &place, error);
    if (status == STATUS_OK)
        status = decoder_describe(&decoder, error);
    if (status == STATUS_OK)
        status = place_resolve(&decoder, &place, &first, &end, error);
    if (status != STATUS_OK || shown->tensor->info.size == 0)
        return status;
    if (shown->global)
        status = global_read(&decoder, error);
    return status == STATUS_OK ? blocks_read(&decoder, first, end, limit, error) : status;
}

void shown_free(struct shown *shown) {
    free(shown->blocks);
    free(shown->codes);
    free(shown->numbers);
    *shown = (struct shown){0};
}
