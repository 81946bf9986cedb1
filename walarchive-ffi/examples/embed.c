/* Stores a WAL segment in an archive, and fetches it back:
 *
 *     cc -I walarchive-ffi/include walarchive-ffi/examples/embed.c -lwalarchive -o embed
 *     ./embed WALARCHIVE_ARCHIVE=file:///tmp/archive 000000010000000000000001 /tmp/copy
 *
 * More settings may follow, written NAME=value as in the programs' environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "walarchive.h"

static walarchive_error *error;

/* Ends the program when a call failed. */
static void check(const char *what, uint32_t status)
{
    if (status == 0)
        return;
    fprintf(stderr, "%s: status %u (%s), kind %s: %s\n", what, (unsigned)status, walarchive_status_text(status),
            walarchive_error_kind(error), walarchive_error_message(error));
    walarchive_error_free(error);
    exit((int)status);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s NAME=value SEGMENT COPY [NAME=value...]\n", argv[0]);
        return 2;
    }
    const char **settings = calloc((size_t)argc, sizeof *settings);
    if (settings == NULL)
        return 6;
    settings[0] = argv[1];
    for (int i = 4; i < argc; i++)
        settings[i - 3] = argv[i];

    walarchive_cluster *cluster = NULL;
    check("open", walarchive_open(NULL, settings, &cluster, &error));
    free(settings);

    const char *slash = strrchr(argv[2], '/');
    const char *name = slash == NULL ? argv[2] : slash + 1;
    char *json = NULL;
    check("init", walarchive_init(cluster, false, &error));
    check("push", walarchive_wal_push(cluster, argv[2], NULL, &error));
    check("fetch", walarchive_wal_fetch(cluster, name, argv[3], NULL, &error));
    check("list", walarchive_wal_list(cluster, &json, &error));
    printf("%s\n", json);
    walarchive_string_free(json);
    walarchive_close(cluster);
    return 0;
}
