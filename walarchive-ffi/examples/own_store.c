/* An archive in a store of one's own: here a list in memory, which forgets with the process. A segment goes in and comes back,
 * a text is sealed and opened.
 *
 *     ./own_store SEGMENT COPY NAME=value...
 *
 * Among the settings are WALARCHIVE_RECIPIENTS and WALARCHIVE_IDENTITY_FILE: what the list holds is encrypted. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "walarchive.h"

struct object {
    struct object *next;
    char *key;
    uint8_t *payload;
    size_t length;
};

struct list {
    pthread_mutex_t lock; /* The callbacks come from several threads. */
    struct object *first;
};

/* Where the object is in the list, or would be appended. */
static struct object **find(struct list *list, const char *key)
{
    struct object **at = &list->first;
    while (*at != NULL && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    return at;
}

static void drop(struct object *object)
{
    free(object->key);
    free(object->payload);
    free(object);
}

static uint32_t create(void *context, const char *key, const uint8_t *payload, size_t length, walarchive_answer *answer)
{
    struct list *list = context;
    pthread_mutex_lock(&list->lock);
    struct object **at = find(list, key);
    if (*at != NULL) {
        walarchive_answer_exists(answer);
    } else {
        *at = calloc(1, sizeof **at);
        if (*at != NULL) {
            (*at)->key = strdup(key);
            (*at)->payload = malloc(length + 1);
        }
        if (*at == NULL || (*at)->key == NULL || (*at)->payload == NULL)
            abort();
        memcpy((*at)->payload, payload, length);
        (*at)->length = length;
    }
    pthread_mutex_unlock(&list->lock);
    return 0;
}

static uint32_t get(void *context, const char *key, uint64_t offset, uint64_t length, walarchive_answer *answer)
{
    struct list *list = context;
    uint32_t status = 1;
    pthread_mutex_lock(&list->lock);
    const struct object *object = *find(list, key);
    if (object != NULL) {
        uint64_t left = offset < object->length ? object->length - offset : 0;
        if (left > 0)
            walarchive_answer_bytes(answer, object->payload + offset, (size_t)(length < left ? length : left));
        walarchive_answer_size(answer, object->length);
        status = 0;
    } else {
        walarchive_answer_message(answer, "the list has no such object");
    }
    pthread_mutex_unlock(&list->lock);
    return status;
}

static uint32_t list_all(void *context, const char *prefix, walarchive_answer *answer)
{
    struct list *list = context;
    pthread_mutex_lock(&list->lock);
    for (const struct object *object = list->first; object != NULL; object = object->next)
        if (strncmp(object->key, prefix, strlen(prefix)) == 0)
            walarchive_answer_entry(answer, object->key, object->length);
    pthread_mutex_unlock(&list->lock);
    return 0;
}

static uint32_t remove_one(void *context, const char *key, walarchive_answer *answer)
{
    struct list *list = context;
    (void)answer;
    pthread_mutex_lock(&list->lock);
    struct object **at = find(list, key), *object = *at;
    if (object != NULL) {
        *at = object->next;
        drop(object);
    }
    pthread_mutex_unlock(&list->lock);
    return 0;
}

static void release(void *context)
{
    struct list *list = context;
    size_t count = 0;
    while (list->first != NULL) {
        struct object *object = list->first;
        list->first = object->next;
        drop(object);
        count++;
    }
    printf("released with %zu objects\n", count);
}

static walarchive_error *error;

static void check(const char *what, uint32_t status)
{
    if (status == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, walarchive_error_message(error));
    walarchive_error_free(error);
    exit((int)status);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s SEGMENT COPY NAME=value...\n", argv[0]);
        return 2;
    }
    struct list list = {.lock = PTHREAD_MUTEX_INITIALIZER};
    const walarchive_storage store = {
        .context = &list, .create = create, .get = get, .list = list_all, .remove = remove_one, .release = release};
    const char *const *settings = (const char *const *)argv + 3; /* argv ends in a null pointer, as the settings have to */
    const char *slash = strrchr(argv[1], '/');
    const char *name = slash == NULL ? argv[1] : slash + 1;
    walarchive_cluster *cluster = NULL;
    char *json = NULL;

    check("open", walarchive_open_in(NULL, settings, &store, &cluster, &error));
    check("init", walarchive_init(cluster, true, &error));
    check("push", walarchive_wal_push(cluster, argv[1], NULL, &error));
    check("fetch", walarchive_wal_fetch(cluster, name, argv[2], NULL, &error));
    check("verify", walarchive_verify(cluster, true, NULL, NULL, &error));
    check("status", walarchive_status(cluster, &json, &error));
    puts(json);
    walarchive_string_free(json);

    uint8_t *sealed = NULL, *opened = NULL;
    size_t sealed_length, length;
    const char *secret = "what nobody else may read";
    check("seal", walarchive_seal(cluster, (const uint8_t *)secret, strlen(secret), &sealed, &sealed_length, &error));
    check("unseal", walarchive_unseal(cluster, sealed, sealed_length, 1000, &opened, &length, &error));
    printf("%.*s\n", (int)length, (const char *)opened);
    walarchive_buffer_free(opened, length);
    walarchive_buffer_free(sealed, sealed_length);
    walarchive_close(cluster);
    return 0;
}
