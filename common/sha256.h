/*
 * SHA-256 (FIPS 180-4), by OpenSSL's EVP, which uses the processor's SHA instructions where it has them.
 */
#ifndef QSTREAM_COMMON_SHA256_H
#define QSTREAM_COMMON_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { SHA256_SIZE = 32, SHA256_HEX = 2 * SHA256_SIZE + 1 };

struct sha256; /* a hash in progress */

struct sha256 *sha256_new(void); /* NULL when out of memory */
void sha256_update(struct sha256 *hash, const void *bytes, size_t length);
void sha256_digest(struct sha256 *hash, uint8_t digest[SHA256_SIZE]); /* ends the hash; then only free it */
void sha256_free(struct sha256 *hash);                                /* NULL is fine */

enum status sha256_of(const void *bytes, size_t length, uint8_t digest[SHA256_SIZE], struct error *error);

/* Lower-case hexadecimal, NUL-terminated. Returns `hex`. */
const char *sha256_hex(const uint8_t digest[SHA256_SIZE], char hex[SHA256_HEX]);

/* The other way round; false when `hex` is not 64 lower-case hexadecimal digits and nothing else. */
bool sha256_from_hex(const char *hex, uint8_t digest[SHA256_SIZE]);

#endif
