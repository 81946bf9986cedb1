/* The C interface of walarchive. */
#ifndef WALARCHIVE_H
#define WALARCHIVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface; it changes when a caller has to be compiled anew. */
uint32_t walarchive_abi_version(void);

/* The version of the library; the string lives as long as the library is loaded. */
const char *walarchive_version(void);

/* What a status number means; the string lives as long as the library is loaded. */
const char *walarchive_status_text(uint32_t status);

#ifdef __cplusplus
}
#endif

#endif
