#include <curl/curl.h>
#include <stdio.h>

#include "common/cpu.h"
#include "common/libcurl.h"
#include "common/parquet_codec.h"
#include "common/version.h"
#include "infer/cpu/product.h"
#include "infer/cuda/cuda.h"
#include "qstream/command.h"

static void cpu_print(void) {
    printf("instruction set: %s (variants:", cpu_level_name(cpu_best()));
    for (enum cpu_level level = 0; level < CPU_LEVELS; level++)
        if (cpu_has(level))
            printf(" %s", cpu_level_name(level));
    puts(")");
    const char *before = "not on this machine: ";
    for (enum cpu_level level = 0; level < CPU_LEVELS; level++)
        if (cpu_is_compiled(level) && !cpu_has(level)) {
            printf("%s%s", before, cpu_level_name(level));
            before = " ";
        }
    printf("%sSHA-256 instructions: %s\n", *before == ' ' ? "\n" : "", cpu_has_sha() ? "yes" : "no");
}

static void products_print(void) {
    char name[PRODUCTS_NAME_MAX];
    struct error error;
    const enum status status = products_describe(name, &error);
    printf("matrix products: %s%s\n", status == STATUS_OK ? name : "none, ", status == STATUS_OK ? "" : error.message);
}

static void network_print(void) {
    struct error error;
    if (libcurl_load(&error) != STATUS_OK) {
        printf("network: none, %s\n", error.message);
        return;
    }
    const curl_version_info_data *info = libcurl.version_info(CURLVERSION_NOW);
    printf("network: libcurl %s, %s\n", info->version, info->ssl_version ? info->ssl_version : "without TLS");
}

static void parquet_print(void) {
    static const struct {
        enum parquet_codec codec;
        const char *name;
    } codecs[] = {{PARQUET_GZIP, "gzip"}, {PARQUET_SNAPPY, "snappy"}, {PARQUET_ZSTD, "zstd"}};
    struct error errors[sizeof codecs / sizeof *codecs];
    bool found[sizeof codecs / sizeof *codecs];
    printf("Parquet files:");
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        found[i] = parquet_codec_load(codecs[i].codec, &errors[i]) == STATUS_OK;
        if (found[i])
            printf(" %s", codecs[i].name);
    }
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        if (!found[i])
            printf("; no %s, %s", codecs[i].name, errors[i].message);
    putchar('\n');
}

static void cuda_print(void) {
    struct cuda_presence presence;
    struct error error;
    if (cuda_look(&presence, &error) != STATUS_OK)
        printf("CUDA plug-in: none, %s\n", error.message);
    else if (!*presence.path)
        puts("CUDA plug-in: none");
    else if (presence.devices > 0)
        printf("CUDA plug-in: %s, %d device%s\n", presence.path, presence.devices, presence.devices == 1 ? "" : "s");
    else
        printf("CUDA plug-in: %s, %s\n", presence.path, *presence.message ? presence.message : "no device");
}

int command_version(int argc, char **argv) {
    (void)argc;
    (void)argv;
    printf("qstream %s\n", QSTREAM_VERSION);
    cpu_print();
    products_print();
    network_print();
    parquet_print();
    cuda_print();
    return STATUS_OK;
}
