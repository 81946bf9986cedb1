/* Stores that fail or do not keep their promises, and buffers that are no buffers: each is told, and nothing leaks. Arguments:
 * settings with keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "walarchive.h"

static int released;

static void release(void *context)
{
    (void)context;
    released++;
}

static uint32_t create(void *context, const char *key, const uint8_t *payload, size_t length, walarchive_answer *answer)
{
    (void)key, (void)payload, (void)length, (void)answer;
    return *(uint32_t *)context;
}

static uint32_t get(void *context, const char *key, uint64_t offset, uint64_t length, walarchive_answer *answer)
{
    (void)key, (void)offset, (void)length;
    walarchive_answer_message(answer, "the cable is \xff out");
    if (*(uint32_t *)context == 0) /* Less than there is said to be. */
        walarchive_answer_size(answer, 1000);
    return *(uint32_t *)context;
}

static uint32_t list(void *context, const char *prefix, walarchive_answer *answer)
{
    (void)prefix;
    walarchive_answer_entry(answer, NULL, 1);
    walarchive_answer_bytes(answer, NULL, 1);
    return *(uint32_t *)context;
}

static uint32_t remove_one(void *context, const char *key, walarchive_answer *answer)
{
    (void)key, (void)answer;
    return *(uint32_t *)context;
}

static void expect(const char *what, uint32_t status, uint32_t wanted, walarchive_error **place, const char *said)
{
    walarchive_error *error = *place;
    const char *message = error == NULL ? "-" : walarchive_error_message(error);
    if (status != wanted || strstr(message, said) == NULL) {
        fprintf(stderr, "%s: status %u, not %u with %s: %s\n", what, (unsigned)status, (unsigned)wanted, said, message);
        exit(1);
    }
    walarchive_error_free(error);
}

int main(int argc, char **argv)
{
    (void)argc;
    const char *const *settings = (const char *const *)argv + 1;
    uint32_t answers = 5;
    walarchive_storage store = {
        .context = &answers, .create = create, .get = get, .list = list, .remove = remove_one, .release = release};
    walarchive_cluster *cluster = NULL;
    walarchive_error *error;

    expect("open", walarchive_open_in(NULL, settings, &store, &cluster, &error), 0, &error, "-");
    expect("init", walarchive_init(cluster, true, &error), 5, &error, "the cable is");
    answers = 1;
    expect("list", walarchive_wal_list(cluster, NULL, &error), 5, &error, "is it mounted");
    answers = 77;
    expect("init", walarchive_init(cluster, true, &error), 6, &error, "the cable is");
    answers = 0;
    expect("list", walarchive_wal_list(cluster, NULL, &error), 6, &error, "gave 0 bytes where");

    uint8_t *buffer = NULL;
    size_t length;
    const uint8_t junk[] = "age-encryption.org/v1\n-> no such thing";
    expect("unseal", walarchive_unseal(cluster, junk, sizeof junk, 10, &buffer, &length, &error), 4, &error, "");
    expect("unseal", walarchive_unseal(cluster, NULL, 9, 10, &buffer, &length, &error), 2, &error, "null");
    expect("unseal", walarchive_unseal(cluster, NULL, 0, 10, &buffer, &length, &error), 4, &error, "");
    expect("seal", walarchive_seal(cluster, junk, sizeof junk, NULL, &length, &error), 2, &error, "null");
    expect("seal", walarchive_seal(cluster, NULL, 0, &buffer, &length, &error), 0, &error, "-");
    uint8_t *none = NULL;
    size_t nothing = 1;
    expect("unseal", walarchive_unseal(cluster, buffer, length, 0, &none, &nothing, &error), 0, &error, "-");
    if (nothing != 0 || none == NULL)
        return 1;
    walarchive_buffer_free(none, nothing);
    walarchive_buffer_free(buffer, length);
    walarchive_buffer_free(NULL, 5);
    walarchive_close(cluster);
    if (released != 1)
        return 1;

    store.list = NULL;
    expect("open", walarchive_open_in(NULL, settings, &store, &cluster, &error), 2, &error, "lacks one of");
    static const char *const wrong[] = {"WALARCHIVE_NONSENSE=1", NULL};
    store.list = list;
    expect("open", walarchive_open_in(NULL, wrong, &store, &cluster, &error), 2, &error, "NONSENSE");
    return released == 3 ? 0 : 1;
}
