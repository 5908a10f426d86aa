#include "common/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* struct sha256 is OpenSSL's own context under a name that says what it does. */
static EVP_MD_CTX *context(struct sha256 *hash) { return (EVP_MD_CTX *)hash; }

struct sha256 *sha256_new(void) {
    EVP_MD_CTX *new = EVP_MD_CTX_new();
    if (new &&EVP_DigestInit_ex(new, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(new);
        return NULL;
    }
    return (struct sha256 *)new;
}

void sha256_update(struct sha256 *hash, const void *bytes, size_t length) {
    EVP_DigestUpdate(context(hash), bytes, length);
}

void sha256_digest(struct sha256 *hash, uint8_t digest[SHA256_SIZE]) {
    EVP_DigestFinal_ex(context(hash), digest, NULL);
}

void sha256_free(struct sha256 *hash) { EVP_MD_CTX_free(context(hash)); }

enum status sha256_of(const void *bytes, size_t length, uint8_t digest[SHA256_SIZE], struct error *error) {
    struct sha256 *hash = sha256_new();
    if (!hash)
        return error_set_memory(error);
    sha256_update(hash, bytes, length);
    sha256_digest(hash, digest);
    sha256_free(hash);
    return STATUS_OK;
}

const char *sha256_hex(const uint8_t digest[SHA256_SIZE], char hex[SHA256_HEX]) {
    for (int i = 0; i < SHA256_SIZE; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return hex;
}

bool sha256_from_hex(const char *hex, uint8_t digest[SHA256_SIZE]) {
    static const char digits[] = "0123456789abcdef";
    if (strlen(hex) != SHA256_HEX - 1)
        return false;
    for (size_t i = 0; i < SHA256_SIZE; i++) {
        const char *high = strchr(digits, hex[2 * i]), *low = strchr(digits, hex[2 * i + 1]);
        if (!high || !low)
            return false;
        digest[i] = (uint8_t)((high - digits) << 4 | (low - digits));
    }
    return true;
}
