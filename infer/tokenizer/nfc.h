/*
 * Unicode's normalization form C, as the tokenizers library makes it (characters that came after Unicode 9 stay as
 * they are). In time linear in the text, whatever it holds.
 */
#ifndef QSTREAM_INFER_TOKENIZER_NFC_H
#define QSTREAM_INFER_TOKENIZER_NFC_H

#include "common/status.h"
#include "common/text.h"

/*
 * Appends the normalized text to *out and sets *changed, or leaves *out as it is and *changed false when the text is
 * normalized already. The text is UTF-8.
 */
enum status nfc_normalize(const char *text, size_t length, struct text *out, bool *changed, struct error *error);

#endif
