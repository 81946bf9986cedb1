/* Calls that fail, many of them, and threads that share one cluster. Everything is given back: AddressSanitizer and Valgrind
 * look on. Arguments: how many failing calls, then settings. In the working directory lie segments named as they are asked for. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "walarchive.h"

#define THREADS 16

static const walarchive_cluster *shared;

/* The error is looked at in here: in which order C takes arguments, it does not say. */
static void expect(const char *what, uint32_t status, uint32_t wanted, walarchive_error **place, const char *kind)
{
    walarchive_error *error = *place;
    const char *is = walarchive_error_kind(error);
    if (status != wanted || walarchive_error_status(error) != wanted ||
        (kind == NULL ? is != NULL : is == NULL || strcmp(is, kind) != 0)) {
        fprintf(stderr, "%s: status %u of kind %s: %s\n", what, (unsigned)status, is == NULL ? "-" : is,
                error == NULL ? "-" : walarchive_error_message(error));
        exit(1);
    }
    walarchive_error_free(error);
}

static bool refuse(void *calls, uint64_t bytes)
{
    (void)bytes;
    ++*(int *)calls;
    return false;
}

static void *work(void *number)
{
    char name[25], copy[32];
    walarchive_error *error;
    snprintf(name, sizeof name, "0000000100000000%08X", (unsigned)(size_t)number);
    snprintf(copy, sizeof copy, "%s.copy", name);
    expect("push", walarchive_wal_push(shared, name, NULL, &error), 0, &error, NULL);
    expect("push again", walarchive_wal_push(shared, name, NULL, &error), 0, &error, NULL);
    expect("fetch", walarchive_wal_fetch(shared, name, copy, NULL, &error), 0, &error, NULL);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    walarchive_cluster *cluster = NULL;
    walarchive_error *error;
    const char **settings = (const char **)argv + 2;
    expect("open", walarchive_open(NULL, settings, &cluster, &error), 0, &error, NULL);
    expect("init", walarchive_init(cluster, false, &error), 0, &error, NULL);
    shared = cluster;

    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(i + 1)) != 0)
            return 6;
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);

    char *json = NULL;
    expect("list", walarchive_wal_list(cluster, &json, &error), 0, &error, NULL);
    puts(json);
    walarchive_string_free(json);
    expect("verify", walarchive_verify(cluster, true, NULL, &json, &error), 0, &error, NULL);
    walarchive_string_free(json);

    int calls = 0;
    const walarchive_progress refusing = {.context = &calls, .advance = refuse};
    expect("unwanted push", walarchive_wal_push(cluster, "000000010000000000000001", &refusing, &error), 6, &error, "cancelled");
    expect("unwanted fetch", walarchive_wal_fetch(cluster, "000000010000000000000001", "x", &refusing, &error), 6, &error,
           "cancelled");
    if (calls != 2)
        return 1;

    expect("status", walarchive_status(cluster, &json, &error), 0, &error, NULL);
    walarchive_string_free(json);

    static const char *const wrong[] = {"WALARCHIVE_NONSENSE=1", NULL};
    static const char *const no_pair[] = {"nonsense", NULL};
    walarchive_cluster *none = NULL;
    for (long left = strtol(argv[1], NULL, 10); left > 0; left -= 8) {
        expect("open", walarchive_open(NULL, wrong, &none, &error), 2, &error, "usage");
        expect("open", walarchive_open(NULL, no_pair, &none, &error), 2, &error, "usage");
        expect("open", walarchive_open("/no/such/file", wrong, &none, &error), 2, &error, "usage");
        expect("push", walarchive_wal_push(cluster, "not a name", NULL, &error), 2, &error, "usage");
        expect("push", walarchive_wal_push(NULL, "name", NULL, &error), 2, &error, "usage");
        expect("fetch", walarchive_wal_fetch(cluster, NULL, "x", NULL, &error), 2, &error, "usage");
        expect("fetch", walarchive_wal_fetch(cluster, "00000001000000000000FFFF", "x", NULL, &error), 1, &error, "absent");
        if (walarchive_wal_fetch(cluster, "\xff", "x", NULL, NULL) != 2)
            return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        uint32_t status = walarchive_wal_list(cluster, &json, NULL);
        walarchive_close(cluster);
        /* What it has of its parent is nobody's leak: this end is not looked at. */
        if (status == 2)
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    int ended = 0;
    if (waitpid(child, &ended, 0) != child || !WIFSIGNALED(ended) || WTERMSIG(ended) != SIGKILL)
        return 1;
    walarchive_close(cluster);
    walarchive_close(NULL);
    walarchive_error_free(NULL);
    walarchive_string_free(NULL);
    return 0;
}
