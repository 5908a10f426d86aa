/*
 * Model repositories on the Hub as someone who writes to them sees them: whether there is one, who may see it, making one.
 */
#ifndef QSTREAM_COMMON_HUB_UPLOAD_TARGET_H
#define QSTREAM_COMMON_HUB_UPLOAD_TARGET_H

#include "common/hub/listing.h"

struct hub_target {
    bool found;               /* false: there is none of this name, or none that the token may see */
    bool private;             /* only its owners see it */
    bool branch;              /* it has the reference's revision */
    char commit[HUB_OID_HEX]; /* of the branch */
};

/* Looks a repository up. One that goes by another name now is STATUS_BAD_INPUT, which tells that name. */
enum status hub_target_find(struct hub *hub, const struct hub_reference *reference, struct hub_target *repository,
                            struct error *error);

/*
 * Whether the token may write, as far as the Hub tells before it is tried. STATUS_BAD_INPUT: it is not valid, or only reads,
 * or, with `into`, has no rights to the repository, which is there.
 */
enum status hub_target_check(struct hub *hub, const struct hub_reference *reference, bool into, struct error *error);

/* Makes the repository, with the Hub's own first commit in it. That it is there already is no error, as with branches. */
enum status hub_target_create(struct hub *hub, const struct hub_reference *reference, bool private,
                              struct error *error);

/* Makes the reference's revision a branch that begins where main is. */
enum status hub_target_branch(struct hub *hub, const struct hub_reference *reference, struct error *error);

#endif
